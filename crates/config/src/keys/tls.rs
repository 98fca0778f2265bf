//! `[listener.NAME.tls]`.

use crate::key::{Block, Kind, key};
use crate::words::ClientWord;

pub(crate) static TLS: Block = Block {
    path: "listener.*.tls",
    meaning: "A certificate that is shown to clients, and what they show.",
    keys: &[
        key("certificate", Kind::Path)
            .means("The file of the certificate, followed by those between it and its root, in PEM.")
            .example("web.crt"),
        key("key", Kind::Path).means("The file of the certificate's private key, in PEM.").example("web.key"),
        key("client_ca", Kind::Path)
            .or_else("Clients are asked for no certificate.")
            .means(
                "The file of the roots that sign the certificates of clients, in PEM. A certificate proves \
                 an identity: the first that it has of a URI, a DNS name, an e-mail address and a common \
                 name.",
            )
            .example("clients.pem"),
        key("client_crl", Kind::Path)
            .or_else("Certificates of clients count until they expire.")
            .means(
                "The file of the revocation lists of `client_ca`, in PEM: one of each authority between a \
                 client and its root, none of them past its next update, or nobody is let in. It is read \
                 again when it changes; who is on it then is cut off.",
            )
            .example("clients.crl"),
        key("client", Kind::Words(ClientWord::WORDS))
            .or("required")
            .means("Where there is a `client_ca`: what becomes of clients that show no certificate.")
            .example("optional"),
    ],
    later: &[],
};
