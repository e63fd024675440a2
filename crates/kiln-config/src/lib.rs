//! HCL text to a Stack, with diagnostics: bytes in, no I/O.
