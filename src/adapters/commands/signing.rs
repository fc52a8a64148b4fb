//! Signed commands: Ed25519 keys in OpenSSL's PEM, and the text that a signature covers.
//!
//! The signed text is a domain tag and every part, each with its length in front, so that different commands,
//! agents or challenges never give the same bytes.

use std::{fmt, fs, io, net::SocketAddrV4, path::Path};

use ed25519_dalek::{
    Signature, Signer, SigningKey, VerifyingKey,
    pkcs8::{
        self, DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, KeypairBytes,
        spki::{self, der::pem::LineEnding},
    },
};

/// Separates these signatures from other uses of the key.
const DOMAIN: &[u8] = b"kubervisor invoke v1";

/// The version of this exchange.
pub const VERSION: u8 = 1;

/// The random bytes that an agent generates for one command.
pub type Challenge = [u8; 32];

/// A key that cannot be read or made. The first member of a variant is the file's path.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// The file cannot be read.
    #[error("cannot read the key file {0}: {1}")]
    Read(String, #[source] io::Error),
    /// The file holds no private key.
    #[error("{0} holds no Ed25519 private key in PEM (PKCS#8): {1}; `kubervisor keygen` makes one")]
    ReadPrivate(String, #[source] pkcs8::Error),
    /// The file holds no public key.
    #[error(
        "{0} holds no Ed25519 public key in PEM (SPKI): {1}; `kubervisor keygen` makes one, \
         `openssl pkey -pubout` takes it from a private key"
    )]
    ReadPublic(String, #[source] spki::Error),
    /// The system gave no random bytes.
    #[error("no random bytes for a key: {0}")]
    Draw(getrandom::Error),
    /// A key cannot be written as PEM.
    #[error("cannot write the key as PEM: {0}")]
    Encode(String),
}

/// All that a signature covers.
#[derive(Clone, Copy, Debug)]
pub struct SignedOrder<'a> {
    /// The agent's challenge.
    pub challenge: &'a Challenge,
    /// The address that the caller dialled; the agent uses its own.
    pub address: SocketAddrV4,
    /// The agent's id.
    pub agent: &'a str,
    /// The command, verbatim.
    pub cmd: &'a str,
    /// The request's other members except `kubervisor`, in order: name and JSON text, which the command reads.
    pub members: &'a [(&'a str, &'a str)],
}

impl SignedOrder<'_> {
    fn text(&self) -> Vec<u8> {
        let address = self.address.to_string();
        let mut text = Vec::with_capacity(256 + self.cmd.len());
        let mut push = |part: &[u8]| {
            text.extend_from_slice(&(part.len() as u64).to_be_bytes());
            text.extend_from_slice(part);
        };
        for part in [DOMAIN, self.challenge, address.as_bytes(), self.agent.as_bytes(), self.cmd.as_bytes()] {
            push(part);
        }
        self.members.iter().flat_map(|(name, value)| [name, value]).for_each(|part| push(part.as_bytes()));
        text
    }
}

/// Signs commands. `Debug` does not show the key.
pub struct PrivateKey(SigningKey);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

impl PrivateKey {
    /// Generates a key.
    ///
    /// # Errors
    /// [`SigningKeyError::Draw`].
    pub fn draw() -> Result<Self, SigningKeyError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(SigningKeyError::Draw)?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads a PEM file, PKCS#8 version 1 or 2.
    ///
    /// # Errors
    /// When the file cannot be read or holds no such key.
    pub fn read(path: &Path) -> Result<Self, SigningKeyError> {
        let pem = read(path)?;
        let failed = |source| SigningKeyError::ReadPrivate(path.display().to_string(), source);
        SigningKey::from_pkcs8_pem(&pem).map(Self).map_err(failed)
    }

    /// The PEM: PKCS#8 version 1, which every OpenSSL reads.
    ///
    /// # Errors
    /// [`SigningKeyError::Encode`].
    pub fn to_pem(&self) -> Result<String, SigningKeyError> {
        let bytes = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        let pem =
            bytes.to_pkcs8_pem(LineEnding::LF).map_err(|error| SigningKeyError::Encode(error.to_string()))?;
        Ok(pem.to_string())
    }

    /// The public key.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs an order.
    pub fn sign(&self, order: &SignedOrder<'_>) -> [u8; 64] {
        self.0.sign(&order.text()).to_bytes()
    }
}

/// Verifies signatures.
#[derive(Clone, Debug)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads a PEM file, SPKI.
    ///
    /// # Errors
    /// When the file cannot be read or holds no such key.
    pub fn read(path: &Path) -> Result<Self, SigningKeyError> {
        let pem = read(path)?;
        let failed = |source| SigningKeyError::ReadPublic(path.display().to_string(), source);
        VerifyingKey::from_public_key_pem(&pem).map(Self).map_err(failed)
    }

    /// The PEM.
    ///
    /// # Errors
    /// [`SigningKeyError::Encode`].
    pub fn to_pem(&self) -> Result<String, SigningKeyError> {
        self.0.to_public_key_pem(LineEnding::LF).map_err(|error| SigningKeyError::Encode(error.to_string()))
    }

    /// Whether `signature` is the private key's signature of this order.
    pub fn verifies(&self, order: &SignedOrder<'_>, signature: &[u8; 64]) -> bool {
        self.0.verify_strict(&order.text(), &Signature::from_bytes(signature)).is_ok()
    }
}

fn read(path: &Path) -> Result<String, SigningKeyError> {
    fs::read_to_string(path).map_err(|source| SigningKeyError::Read(path.display().to_string(), source))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const HERE: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 8000);

    fn order<'a>(challenge: &'a Challenge, members: &'a [(&'a str, &'a str)]) -> SignedOrder<'a> {
        SignedOrder { challenge, address: HERE, agent: "web-1", cmd: "reload", members }
    }

    #[test]
    fn a_signature_fits_its_order_and_no_other() {
        let (key, stranger) = (PrivateKey::draw().unwrap(), PrivateKey::draw().unwrap());
        let members = [("why", "\"test\"")];
        let genuine = order(&[7; 32], &members);
        let signature = key.sign(&genuine);
        assert!(key.public().verifies(&genuine, &signature));
        assert!(!stranger.public().verifies(&genuine, &signature));
        let moved = SocketAddrV4::new(*HERE.ip(), 8001);
        for other in [
            SignedOrder { challenge: &[8; 32], ..genuine },
            SignedOrder { address: moved, ..genuine },
            SignedOrder { agent: "web-2", ..genuine },
            SignedOrder { cmd: "reload ", ..genuine },
            SignedOrder { members: &[], ..genuine },
            SignedOrder { members: &[("why", "\"Test\"")], ..genuine },
            // The same characters, cut elsewhere.
            SignedOrder { agent: "web-1r", cmd: "eload", ..genuine },
            SignedOrder { members: &[("why\"", "test\"")], ..genuine },
        ] {
            assert!(!key.public().verifies(&other, &signature), "{other:?}");
        }
    }

    #[test]
    fn keys_go_to_openssl_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let openssl = |arguments: &[&str]| {
            let done = Command::new("openssl").args(arguments).current_dir(folder.path()).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", "theirs.pem"]);
        openssl(&["pkey", "-in", "theirs.pem", "-pubout", "-out", "theirs.pub"]);
        let theirs = PrivateKey::read(&path("theirs.pem")).unwrap();
        let signature = theirs.sign(&order(&[1; 32], &[]));
        assert!(PublicKey::read(&path("theirs.pub")).unwrap().verifies(&order(&[1; 32], &[]), &signature));

        let ours = PrivateKey::draw().unwrap();
        fs::write(path("ours.pem"), ours.to_pem().unwrap()).unwrap();
        openssl(&["pkey", "-in", "ours.pem", "-pubout", "-out", "ours.pub"]);
        assert_eq!(fs::read_to_string(path("ours.pub")).unwrap(), ours.public().to_pem().unwrap());
    }

    #[test]
    fn a_private_key_of_version_two_is_read_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v2.pem");
        let key = PrivateKey::draw().unwrap();
        fs::write(&path, key.0.to_pkcs8_pem(LineEnding::LF).unwrap().as_bytes()).unwrap();
        assert_ne!(fs::read_to_string(&path).unwrap(), key.to_pem().unwrap());
        assert_eq!(PrivateKey::read(&path).unwrap().to_pem().unwrap(), key.to_pem().unwrap());
    }

    #[test]
    fn a_file_that_holds_something_else_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let key = PrivateKey::draw().unwrap();
        fs::write(&path, key.to_pem().unwrap()).unwrap();
        let error = PublicKey::read(&path).unwrap_err().to_string();
        assert!(error.contains("key.pem") && error.contains("public key"), "{error}");
        fs::write(&path, key.public().to_pem().unwrap()).unwrap();
        let error = PrivateKey::read(&path).unwrap_err().to_string();
        assert!(error.contains("key.pem") && error.contains("private key"), "{error}");
        assert!(matches!(PublicKey::read(&folder.path().join("none")), Err(SigningKeyError::Read { .. })));
    }
}
