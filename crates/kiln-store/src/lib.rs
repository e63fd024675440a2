//! Sole owner of stored bytes: blobs, image trees, the event log, the sealed store.
