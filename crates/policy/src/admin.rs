//! Who may use the verbs of operators.

/// What proves an operator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdminSubject {
    /// A process at the admin socket, with the user id that the kernel vouches for.
    Peer {
        /// Its user id.
        uid: u32,
        /// The user id that this server runs as.
        ours: u32,
    },
    /// A request over the network; whether it carried the admin token.
    Bearer {
        /// The token was right.
        proved: bool,
    },
    /// Somebody who proved who they are to a listener that has a console.
    User {
        /// The config names them among those who may give orders there.
        named: bool,
    },
}

/// Proof that an operator may act. Position (loopback, a tunnel) never makes one.
#[derive(Clone, Debug)]
pub struct AdminPermit(());

impl AdminPermit {
    /// Decides about `subject`: root, the server's own user, whoever holds the token, or whom the config
    /// names for a console.
    ///
    /// # Errors
    /// [`NotAdmin`] for everybody else.
    pub fn decide(subject: AdminSubject) -> Result<Self, NotAdmin> {
        let allowed = match subject {
            AdminSubject::Peer { uid, ours } => uid == 0 || uid == ours,
            AdminSubject::Bearer { proved } => proved,
            AdminSubject::User { named } => named,
        };
        if allowed { Ok(Self(())) } else { Err(NotAdmin) }
    }
}

/// The subject is no operator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this needs the admin token, or the admin socket as root or the server's own user")]
pub struct NotAdmin;

#[cfg(test)]
mod tests {
    use super::{AdminPermit, AdminSubject};

    #[test]
    fn only_root_the_same_user_or_the_token_may_act() {
        let may = |subject| AdminPermit::decide(subject).is_ok();
        assert!(may(AdminSubject::Peer { uid: 0, ours: 1_000 }));
        assert!(may(AdminSubject::Peer { uid: 1_000, ours: 1_000 }));
        assert!(!may(AdminSubject::Peer { uid: 1_001, ours: 1_000 }));
        assert!(may(AdminSubject::Bearer { proved: true }));
        assert!(!may(AdminSubject::Bearer { proved: false }));
        assert!(may(AdminSubject::User { named: true }));
        assert!(!may(AdminSubject::User { named: false }));
    }
}
