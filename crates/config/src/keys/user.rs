//! `[user.NAME]`.

use crate::key::{Block, COUNT_OR_OFF, Kind, key};

pub(crate) static USER: Block = Block {
    path: "user.*",
    meaning: "Somebody who may log in with a password, at listeners of protocol \"postgres\" whose `auth` \
              asks for one, or what holds for a user who proves it otherwise. NAME is the name that they log \
              in by.",
    keys: &[
        key("verifier", Kind::Verifier)
            .or_else("The password is in `password_file`.")
            .means(
                "What is kept of the password, as PostgreSQL keeps it in pg_authid.rolpassword. `tieline \
                 user password NAME` makes one. With the very verifier that a server has, clients log in \
                 there as themselves (see `upstream.user`).",
            )
            .example(VERIFIER),
        key("password_file", Kind::Path)
            .or_else("Nothing but the `verifier` is known of the password.")
            .means(
                "The file of the password itself, readable by nobody else; a line break at its end is not \
                 part of it. For users who log in to servers as themselves, where the server keeps another \
                 verifier than ours.",
            )
            .example("ana.pw"),
        key("connections", COUNT_OR_OFF)
            .or_else("`limits.per_user` of the listener holds.")
            .means(
                "How many clients may be logged in at once as this user, counted over all listeners and \
                 databases; \"off\": any number. Where it stands alone, the user has no password here, and \
                 is looked up (`auth_query`) or shows a certificate.",
            )
            .example("50"),
    ],
    later: &[],
};

/// RFC 7677 §3: the password "pencil".
const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                        WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                        wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
