//! What a listener of tunnels tells those who only look whether they get there (`tieline doctor`).
//!
//! It proves nobody and makes nothing. Whoever asks learns what he needs to judge his own side: what time it
//! is here, where he is seen to come from, and, if he shows the certificate of an agent, whether that is
//! good.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tieline_base::{ClientAddr, Clock};
use tieline_transport::Io;

use crate::agents::told;
use crate::enrol::{hear, say};
use crate::known::Standing;
use crate::server::Shown;

/// Nothing is asked for: each question is answered alike.
#[derive(Serialize, Deserialize)]
struct Question {}

/// What a server says to those who look.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Since 1970, in milliseconds.
    pub(crate) clock_ms: u64,
    /// Where whoever asks is seen to come from.
    pub(crate) client: String,
    /// Whom he is taken for.
    pub(crate) seen: Seen,
}

/// Whom the server takes somebody for, by the certificate that he shows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// An agent.
    pub(crate) agent: Option<AgentSeen>,
    /// A person, by his name.
    pub(crate) person: Option<String>,
}

/// An agent as its server sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AgentSeen {
    /// Its name.
    pub name: String,
    /// Whether it may link up.
    pub good: bool,
    /// Whether it may not, and may have another certificate for the one that is over.
    pub renewable: bool,
    /// The same in words, and why not.
    pub told: String,
}

/// The most questions that are answered over one connection: enough to measure a round trip.
pub(crate) const QUESTIONS_MAX: usize = 8;

/// What an answer took to come, and what it says.
pub(crate) struct Heard {
    pub(crate) answer: Answer,
    pub(crate) round_trip: Duration,
}

/// Asks once over `io`. Without a deadline: the caller has one.
pub(crate) async fn ask(io: &mut Io) -> io::Result<Heard> {
    let asked_at = Clock::now();
    let said = say(io, &Question {}).await;
    // Where it cannot be said, what was heard before may tell why.
    let answer = match (hear::<Answer>(io).await, said) {
        (Err(why), Err(_)) if why.kind() == io::ErrorKind::InvalidData => return Err(why),
        (_, Err(error)) => return Err(error),
        (answer, Ok(())) => answer?,
    };
    let answer = answer.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is none"))?;
    Ok(Heard { answer, round_trip: Clock::now().since(asked_at) })
}

/// The server's part: answers until nobody asks any more. Without a deadline: the caller has one.
pub(crate) async fn answer(io: &mut Io, client: ClientAddr, seen: Seen) -> io::Result<()> {
    for _ in 0..QUESTIONS_MAX {
        match hear::<Question>(io).await {
            Ok(Some(Question {})) => {}
            Ok(None) => return Err(io::Error::new(io::ErrorKind::InvalidData, "the question is none")),
            // Whoever has seen enough goes.
            Err(_) => return Ok(()),
        }
        let clock = Clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock_ms = u64::try_from(clock.as_millis()).unwrap_or(u64::MAX);
        say(io, &Answer { clock_ms, client: client.to_string(), seen: seen.clone() }).await?;
    }
    Ok(())
}

/// Nobody is locked out for having looked.
const OUT_OF_DATE: &str = "another certificate of the same agent has long been in use, so this is a copy or \
                           a backup; whoever links up by it locks the agent out";

impl AgentSeen {
    pub(crate) fn of(shown: &Shown, standing: Standing) -> AgentSeen {
        let (good, renewable) = (standing == Standing::Good, standing == Standing::Expired);
        let told = if standing == Standing::Copied { OUT_OF_DATE } else { told(standing) };
        AgentSeen { name: shown.agent.clone(), good, renewable, told: told.to_owned() }
    }
}
