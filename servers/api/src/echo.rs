//! The service of the tutorial.

rt::interface! {
    /// Counts on.
    Echo, EchoClient {
        /// The number after `number`.
        1 next(number: u64) -> u64;
    }
}
