//! The cluster token and the proofs made with it.
//!
//! A proof is HMAC-SHA256 under the token over a label that names the role, the door's fresh nonce and
//! every byte that was said. Roles have labels of their own, so that nobody can hand a node's own proof
//! back to it; nonces are fresh on both sides, so that nothing recorded is worth anything.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use rand::Rng;
use sha2::Sha256;

/// A fresh nonce of one side.
pub(super) type Nonce = [u8; 32];
/// A proof.
pub(super) type Proof = [u8; 32];

/// The shared secret of a cluster (RNACOS_CLUSTER_TOKEN), or none. Never printed.
#[derive(Clone, Default)]
pub struct ClusterToken(Option<Arc<[u8]>>);

impl ClusterToken {
    /// The token; an empty one is none.
    pub fn new(token: &str) -> ClusterToken {
        ClusterToken((!token.is_empty()).then(|| token.as_bytes().into()))
    }

    /// No token: peers on this machine only.
    pub fn unset() -> ClusterToken {
        ClusterToken(None)
    }

    /// True when there is one.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// The proof of the side that called.
    pub(super) fn caller_proof(&self, challenge: &Nonce, hello: &[u8]) -> Proof {
        self.mac(CALLER, challenge, hello, &[])
            .finalize()
            .into_bytes()
            .into()
    }

    /// True when `proof` is what [`ClusterToken::caller_proof`] gives; takes the same time for any proof.
    pub(super) fn is_caller_proof(&self, challenge: &Nonce, hello: &[u8], proof: &Proof) -> bool {
        self.mac(CALLER, challenge, hello, &[])
            .verify_slice(proof)
            .is_ok()
    }

    /// The proof of the side that was called; `hello` holds the caller's nonce.
    pub(super) fn door_proof(&self, challenge: &Nonce, hello: &[u8], answer: &[u8]) -> Proof {
        self.mac(DOOR, challenge, hello, answer)
            .finalize()
            .into_bytes()
            .into()
    }

    /// As [`ClusterToken::is_caller_proof`], for the door's proof.
    pub(super) fn is_door_proof(
        &self,
        challenge: &Nonce,
        hello: &[u8],
        answer: &[u8],
        proof: &Proof,
    ) -> bool {
        self.mac(DOOR, challenge, hello, answer)
            .verify_slice(proof)
            .is_ok()
    }

    /// Without a token the key is empty: the proof then says nothing, and only the rule "this machine
    /// only" protects the door. One code path for both keeps that rule in one place.
    fn mac(&self, label: &[u8], challenge: &Nonce, hello: &[u8], answer: &[u8]) -> Hmac<Sha256> {
        let key = self.0.as_deref().unwrap_or_default();
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| unreachable!("any key length"));
        mac.update(label);
        mac.update(challenge);
        // Lengths first: no two different pairs may give the same bytes.
        mac.update(&(hello.len() as u64).to_be_bytes());
        mac.update(hello);
        mac.update(&(answer.len() as u64).to_be_bytes());
        mac.update(answer);
        mac
    }
}

impl fmt::Debug for ClusterToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() {
            "ClusterToken(set)"
        } else {
            "ClusterToken(unset)"
        })
    }
}

const CALLER: &[u8] = b"rnacos peer door 1, caller\0";
const DOOR: &[u8] = b"rnacos peer door 1, door\0\0\0";

/// 32 bytes nobody can foresee (a cryptographic generator seeded by the operating system).
pub(super) fn fresh_nonce() -> Nonce {
    let mut nonce = Nonce::default();
    rand::rng().fill_bytes(&mut nonce);
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_role_nonce_and_bytes_only() {
        let token = ClusterToken::new("a token");
        let nonce = fresh_nonce();
        let proof = token.caller_proof(&nonce, b"hello");
        assert!(token.is_caller_proof(&nonce, b"hello", &proof));
        assert!(!token.is_caller_proof(&fresh_nonce(), b"hello", &proof));
        assert!(!token.is_caller_proof(&nonce, b"hellp", &proof));
        assert!(!token.is_door_proof(&nonce, b"hello", b"", &proof));
        assert!(!ClusterToken::new("another").is_caller_proof(&nonce, b"hello", &proof));
        assert!(!ClusterToken::unset().is_caller_proof(&nonce, b"hello", &proof));
        let answer = token.door_proof(&nonce, b"hello", b"welcome");
        assert!(token.is_door_proof(&nonce, b"hello", b"welcome", &answer));
        assert!(!token.is_door_proof(&nonce, b"hellow", b"elcome", &answer));
    }

    #[test]
    fn a_token_is_never_printed() {
        assert_eq!(format!("{:?}", ClusterToken::new("secret")), "ClusterToken(set)");
        assert!(!ClusterToken::new("").is_set());
    }
}
