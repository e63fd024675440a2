//! Where instances run: the provider port and this host.
