//! What no single file can show: the rules of the code base, the shipped files, the whole program.

// Lints that spare tests know them by this attribute.
#[cfg(test)]
mod answers;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod cases;
#[cfg(test)]
mod config;
#[cfg(test)]
mod dead_log;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod faces;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod http2;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod models;
#[cfg(test)]
mod photos;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod scarce;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod stop;
#[cfg(test)]
mod support;
#[cfg(test)]
mod training;
#[cfg(test)]
mod versions;
