//! Recipe and lock to image.
