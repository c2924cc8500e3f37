//! The description of a service, from which both sides and the reference page come.

/// What is said of a service.
#[derive(Clone, Copy, Debug)]
pub struct Reference {
    /// Its name.
    pub name: &'static str,
    /// What it does, as it is documented.
    pub about: &'static str,
    /// Its operations.
    pub operations: &'static [Operation],
}

/// What is said of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Its number in a message.
    pub number: u64,
    /// Its name.
    pub name: &'static str,
    /// Names and types of its arguments.
    pub arguments: &'static [(&'static str, &'static str)],
    /// The type of its value.
    pub value: &'static str,
    /// What it does, as it is documented.
    pub about: &'static str,
}

/// Describes a service: its client `$Client`, and the trait `$Service` of its server. Each operation has a number
/// that never changes its meaning, at most three arguments ([`Argument`]) and a value ([`Reply`]).
#[macro_export]
macro_rules! interface {
    (
        $(#[doc = $doc:literal])*
        $Service:ident, $Client:ident {
            $($(#[doc = $about:literal])* $number:literal $name:ident($($argument:ident: $Type:ty),*) -> $Value:ty;)*
        }
    ) => {
        $(#[doc = $doc])*
        pub trait $Service: $crate::server::Server {
            $($(#[doc = $about])*
            ///
            /// # Errors
            /// Each [`rt::errno::Errno`] says what was refused.
            fn $name(
                &self,
                turn: &$crate::server::Turn<'_, Self>,
                $($argument: <$Type as $crate::service::Argument>::Taken),*
            ) -> Result<$Value, $crate::errno::Errno>;)*

            /// Takes a message apart and does what it asks for.
            #[inline(always)]
            fn dispatch(
                &self,
                turn: &$crate::server::Turn<'_, Self>,
                words: [u64; 4],
            ) -> $crate::service::Answer {
                use $crate::errno::Errno;
                use $crate::service::{Answer, Argument, Arguments, OPERATION};
                match words[0] & OPERATION {
                    $($number => {
                        #[allow(unused_mut, unused_variables, reason = "an operation may have no arguments")]
                        let mut arguments = Arguments::new(words, $crate::server::Server::slot(self, turn, words[0]));
                        $(let Some($argument) = <$Type as Argument>::take(&mut arguments) else {
                            return Answer::refused(<$Type as Argument>::refusal(&arguments));
                        };)*
                        Answer::of(<Self as $Service>::$name(self, turn, $($argument),*), arguments.slot)
                    })*
                    _ => Answer::refused(Errno::NoOperation),
                }
            }
        }

        #[doc = concat!("The client of [`", stringify!($Service), "`].")]
        #[derive(Clone, Copy, Debug)]
        pub struct $Client(pub abi::Handle);

        impl $Client {
            /// What the reference page says of the service.
            pub const REFERENCE: $crate::interface::Reference = $crate::interface::Reference {
                name: stringify!($Service),
                about: concat!($($doc),*),
                operations: &[$($crate::interface::Operation {
                    number: $number,
                    name: stringify!($name),
                    arguments: &[$((stringify!($argument), stringify!($Type))),*],
                    value: stringify!($Value),
                    about: concat!($($about),*),
                }),*],
            };

            $($(#[doc = $about])*
            ///
            /// # Errors
            /// [`rt::service::Failure`].
            #[inline(always)]
            pub fn $name(
                &self,
                $($argument: <$Type as $crate::service::Argument>::Given<'_>),*
            ) -> Result<$Value, $crate::service::Failure> {
                #[allow(unused_mut, reason = "an operation may have no arguments")]
                let mut request = $crate::service::Request::new($number);
                $(<$Type as $crate::service::Argument>::give($argument, &mut request);)*
                request.send(self.0)
            })*
        }
    };
}
