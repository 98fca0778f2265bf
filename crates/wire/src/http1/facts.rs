//! What the fields of one head say together about this hop and about the body.

use super::bytes::{decimal, elements, is_token};
use super::{HttpError, Kind, Version};

/// Names in all `Connection` fields of a head. Each is compared with every field, so they have a bound.
const OPTIONS_MAX: usize = 32;

/// Gathered field by field.
#[derive(Default)]
pub(super) struct Facts<'b> {
    pub(super) host: Option<&'b [u8]>,
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    /// `Connection` names `upgrade`.
    upgrades: bool,
    /// `Connection` names fields that would not end at this hop by themselves.
    pub(super) names_fields: bool,
    options: usize,
    upgrade: Upgrade<'b>,
    pub(super) te_trailers: bool,
    pub(super) expects_continue: bool,
    /// An expectation that nobody knows.
    pub(super) expects_other: bool,
    keep_alive_value: Option<&'b [u8]>,
    authorized: bool,
}

#[derive(Default)]
enum Upgrade<'b> {
    #[default]
    None,
    One(&'b [u8]),
    /// A choice, which we do not make for the endpoint.
    Many,
}

/// How the length of a body is said.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Unsaid,
    Length(u64),
    Chunked,
}

impl<'b> Facts<'b> {
    #[inline]
    pub(super) fn take(&mut self, kind: Kind, value: &'b [u8]) -> Result<(), HttpError> {
        // First of all, as most say nothing here. Both readers pass by this, so that neither can forget one.
        if !kind.decides() {
            return Ok(());
        }
        match kind {
            Kind::Host => self.take_host(value),
            Kind::ContentLength => self.take_content_length(value),
            Kind::TransferEncoding => self.take_transfer_encoding(value),
            Kind::Connection => self.take_connection(value),
            Kind::Upgrade => self.take_upgrade(value),
            Kind::Te => self.take_te(value),
            Kind::Expect => self.take_expect(value),
            Kind::Authorization => match std::mem::replace(&mut self.authorized, true) {
                false => Ok(()),
                true => Err(HttpError::AuthorizationRepeated),
            },
            Kind::KeepAlive => {
                self.keep_alive_value = Some(value);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// RFC 9112 §6.3, without its repairs.
    pub(super) fn framing(&self, version: Version) -> Result<Framing, HttpError> {
        match (self.chunked, self.content_length) {
            (true, _) if version == Version::Http10 => Err(HttpError::CodingInHttp10),
            (true, Some(_)) => Err(HttpError::TwoLengths),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) => Ok(Framing::Unsaid),
        }
    }

    /// RFC 9112 §9.3.
    pub(super) fn keeps_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }

    /// The one protocol that is offered or chosen.
    pub(super) fn upgrade(&self) -> Option<&'b str> {
        match self.upgrade {
            Upgrade::One(protocol) if self.upgrades => str::from_utf8(protocol).ok(),
            _ => None,
        }
    }

    /// `Keep-Alive: timeout=N`, in seconds; anything else there is nobody's business.
    pub(super) fn keep_alive_timeout(&self) -> Option<u32> {
        let mut parameters = elements(self.keep_alive_value?);
        parameters.find_map(|parameter| {
            let (name, value) = parameter.split_at_checked(8)?;
            let seconds = name.eq_ignore_ascii_case(b"timeout=").then(|| decimal(value))??;
            u32::try_from(seconds).ok()
        })
    }

    fn take_host(&mut self, value: &'b [u8]) -> Result<(), HttpError> {
        match self.host.replace(value) {
            None => Ok(()),
            Some(_) => Err(HttpError::HostRepeated),
        }
    }

    fn take_content_length(&mut self, value: &[u8]) -> Result<(), HttpError> {
        let length = decimal(value).ok_or(HttpError::ContentLength)?;
        match self.content_length.replace(length) {
            None => Ok(()),
            Some(_) => Err(HttpError::ContentLengthRepeated),
        }
    }

    fn take_transfer_encoding(&mut self, value: &[u8]) -> Result<(), HttpError> {
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(wrong_coding(value));
        }
        match std::mem::replace(&mut self.chunked, true) {
            false => Ok(()),
            true => Err(HttpError::TransferEncoding),
        }
    }

    fn take_connection(&mut self, value: &[u8]) -> Result<(), HttpError> {
        // What nearly everybody says who says anything.
        if self.options == 0 && value.eq_ignore_ascii_case(b"keep-alive") {
            (self.options, self.keep_alive) = (1, true);
            return Ok(());
        }
        for option in elements(value) {
            self.options += 1;
            if self.options > OPTIONS_MAX || !is_token(option) {
                return Err(HttpError::Connection);
            }
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
                continue;
            }
            match Kind::of(option) {
                Kind::KeepAlive => self.keep_alive = true,
                Kind::Upgrade => self.upgrades = true,
                kind if kind.is_end_to_end() => return Err(HttpError::ConnectionNames),
                kind => self.names_fields |= !kind.is_hop_by_hop(),
            }
        }
        Ok(())
    }

    fn take_upgrade(&mut self, value: &'b [u8]) -> Result<(), HttpError> {
        self.upgrade = match self.upgrade {
            Upgrade::None if is_protocol(value) => Upgrade::One(value),
            _ => Upgrade::Many,
        };
        Ok(())
    }

    fn take_te(&mut self, value: &[u8]) -> Result<(), HttpError> {
        self.te_trailers |= elements(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
        Ok(())
    }

    fn take_expect(&mut self, value: &[u8]) -> Result<(), HttpError> {
        match value.eq_ignore_ascii_case(b"100-continue") {
            true => self.expects_continue = true,
            false => self.expects_other = true,
        }
        Ok(())
    }
}

/// RFC 9110 §7.8: a name, and perhaps a version.
fn is_protocol(value: &[u8]) -> bool {
    match value.iter().position(|byte| *byte == b'/') {
        Some(slash) => is_token(&value[..slash]) && is_token(&value[slash + 1..]),
        None => is_token(value),
    }
}

/// RFC 9112 §6.1: a list of other codings is unknown; everything else means to be read in two ways.
fn wrong_coding(value: &[u8]) -> HttpError {
    let codings = || value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let chunked = codings().filter(|coding| is_chunked(coding)).count();
    let last = codings().next_back().is_some_and(is_chunked);
    if codings().all(is_token) && (chunked == 0 || chunked == 1 && last) {
        HttpError::CodingUnknown
    } else {
        HttpError::TransferEncoding
    }
}
