//! Loop devices: the system calls that rustix has no safe form of.
