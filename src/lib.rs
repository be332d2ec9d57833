//! Lepton: an inference server for CPUs.
