//! A seeded world around the real controller.
