//! Points, records, sweeps, symbols and statistics of the measuring lab.
