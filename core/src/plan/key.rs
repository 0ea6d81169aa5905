//! What a step's cache key is made of.
