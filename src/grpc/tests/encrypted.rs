//! TLS and clear text on one port. Over sockets and in real time: nothing here waits for a while.

use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::support::*;
use crate::grpc::tls::{Files, Tls, TlsError};

/// Accepts one certificate and no other, whatever the date is.
#[derive(Debug)]
struct Only(CertificateDer<'static>);

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match *shown == self.0 {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(Error::General("another certificate".to_owned())),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let ring = ring::default_provider();
        ring.signature_verification_algorithms.supported_schemes()
    }
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tls")
        .join(name)
}

/// Certificate and key of a fixture, where the server looks.
fn install(files: &Files, name: &str) {
    std::fs::copy(fixture(&format!("{name}.cert.pem")), &files.certificates).expect("a copy");
    std::fs::copy(fixture(&format!("{name}.key.pem")), &files.key).expect("a copy");
}

fn in_folder(folder: &Path) -> Files {
    Files {
        certificates: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    }
}

async fn connect(address: std::net::SocketAddr, expected: &str) -> Result<Client, std::io::Error> {
    let pem = fixture(&format!("{expected}.cert.pem"));
    let only = Only(CertificateDer::from_pem_file(pem).expect("a certificate"));
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(only))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    Ok(Client::over(stream).await)
}

#[tokio::test]
async fn tls_and_clear_text_share_the_port_and_a_new_certificate_needs_no_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = in_folder(folder.path());
    install(&files, "first");
    let tls = Arc::new(Tls::load(files.clone()).expect("a certificate"));
    let (port, address) = Port::on_socket(Some(tls.clone()));
    let (mut clear, _clear_stream, _) = Client::connect(address).await.registered().await;
    let encrypted = connect(address, "first").await.expect("a connection");
    let (mut encrypted, _stream, _) = encrypted.registered().await;
    assert_eq!(port.gateway.registry().len(), 2);
    assert!(connect(address, "second").await.is_err());

    install(&files, "second");
    tls.reload().expect("it is read");
    assert!(connect(address, "first").await.is_err());
    let renewed = connect(address, "second").await.expect("a connection");
    let (_renewed, _renewed_stream, _) = renewed.registered().await;
    assert_eq!(encrypted.health().await.codes(), (200, 0), "what is open stays");

    std::fs::write(&files.key, "no key").expect("it is written");
    assert!(matches!(tls.reload(), Err(TlsError::File { .. })));
    assert!(
        connect(address, "second").await.is_ok(),
        "what was in use stays in use"
    );
    assert_eq!(clear.health().await.codes(), (200, 0));
}

/// What a client asks in clear text is refused with a word for its log, and its connection ends. (Peers in clear text
/// are let in: `listener::tests`.)
#[tokio::test]
async fn where_tls_is_required_clear_text_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = in_folder(folder.path());
    install(&files, "first");
    let tls = Tls::load(files).expect("a certificate").required(true);
    let (port, address) = Port::on_socket(Some(Arc::new(tls)));
    let mut clear = Client::connect(address).await;
    let refused = clear.health().await.status();
    assert!(refused.starts_with('7'), "{refused}");
    clear.closed().await;
    assert!(port.gateway.registry().is_empty());
    let (mut encrypted, _stream, _) = connect(address, "first").await.expect("TLS").registered().await;
    assert_eq!(encrypted.health().await.codes(), (200, 0));
}

#[tokio::test]
async fn without_a_certificate_tls_is_closed() {
    let (_port, address) = Port::on_socket(None);
    assert!(connect(address, "first").await.is_err());
    Client::connect(address).await.registered().await;
}

#[test]
fn files_that_are_of_no_use_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = in_folder(folder.path());
    let missing = Tls::load(files.clone()).expect_err("there is none");
    assert!(missing.to_string().contains("cert.pem"), "{missing}");
    install(&files, "first");
    std::fs::copy(fixture("second.key.pem"), &files.key).expect("a copy");
    assert!(matches!(Tls::load(files.clone()), Err(TlsError::Unusable(_))));
    std::fs::write(&files.certificates, "").expect("it is written");
    assert!(matches!(Tls::load(files), Err(TlsError::Empty(_))));
}
