//! rnacos
