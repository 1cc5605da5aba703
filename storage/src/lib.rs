//! What is stored where.
