use std::num::NonZeroU32;

use data_encoding::BASE64;
use proptest::prelude::*;
use tieline_base::{ScramVerifier, Verifier};

use super::*;

const HASH: &[u8] = &[9; 32];
const COUNT: NonZeroU32 = NonZeroU32::new(4_096).unwrap();

/// RFC 7677 §3.
const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const SERVER_FIRST: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const CLIENT_LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                           p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_LAST: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn pencil() -> Keys {
    derive(b"pencil", &BASE64.decode(SALT.as_bytes()).unwrap(), COUNT)
}

fn verifier() -> ScramVerifier {
    pencil().verifier(&BASE64.decode(SALT.as_bytes()).unwrap(), COUNT)
}

/// Both roles against each other: what the server makes of the client's last message, and the client of the
/// server's.
fn exchange(
    keys: &Keys,
    bound: bool,
    ours: client::Channel<'_>,
    theirs: server::Channel<'_>,
) -> Result<(), ScramError> {
    let (client, first) = client::Exchange::begin(ours, &[1; NONCE_BYTES]);
    let (server, answer) =
        server::Exchange::begin(first.as_bytes(), bound, theirs, verifier(), &[2; NONCE_BYTES])?;
    let challenge = client.hear(answer.as_bytes())?;
    assert_eq!((challenge.iterations, BASE64.encode(&challenge.salt).as_str()), (COUNT, SALT));
    let (unverified, last) = challenge.prove(keys);
    let proved = server.finish(last.as_bytes())?;
    assert_eq!(&proved.keys, keys, "what the client proved is what it has");
    unverified.verify(proved.last.as_bytes())
}

#[test]
fn a_password_comes_to_the_verifier_that_postgresql_keeps() {
    let kept = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    assert_eq!(Verifier::Scram(verifier()).to_text(), kept);
}

#[test]
fn the_exchange_of_the_standard_is_signed_as_the_standard_says() {
    // The nonce of the standard's server is not of our form, so its messages are signed here by hand.
    let (_, before) = (CLIENT_FIRST, CLIENT_LAST.rsplit_once(",p=").unwrap().0);
    let signed = format!("n=user,r=rOprNGfwEbeRWgbNEkqO,{SERVER_FIRST},{before}");
    let verifier = verifier();
    let proof = BASE64.decode(CLIENT_LAST.rsplit_once(",p=").unwrap().1.as_bytes()).unwrap();
    let client_key = super::keys::xor(
        proof.first_chunk().unwrap(),
        &super::keys::hmac(&verifier.stored_key, signed.as_bytes()),
    );
    assert_eq!(super::keys::sha256(&client_key), verifier.stored_key);
    assert_eq!(client_key, pencil().client_key);
    let signature = super::keys::hmac(&verifier.server_key, signed.as_bytes());
    assert_eq!(SERVER_LAST, format!("v={}", BASE64.encode(&signature)));
}

#[test]
fn both_roles_agree_with_and_without_binding() {
    use client::Channel as Ours;
    use server::Channel as Theirs;
    let keys = pencil();
    assert_eq!(exchange(&keys, false, Ours::Unable, Theirs::Unbound), Ok(()));
    assert_eq!(exchange(&keys, false, Ours::Unable, Theirs::Bindable(HASH)), Ok(()));
    assert_eq!(exchange(&keys, false, Ours::NotOffered, Theirs::Unbound), Ok(()));
    assert_eq!(exchange(&keys, true, Ours::Bound(HASH), Theirs::Bindable(HASH)), Ok(()));
    // A man in the middle: with another certificate, or who took our offer away.
    assert_eq!(
        exchange(&keys, true, Ours::Bound(&[8; 32]), Theirs::Bindable(HASH)),
        Err(ScramError::Binding)
    );
    assert_eq!(exchange(&keys, false, Ours::NotOffered, Theirs::Bindable(HASH)), Err(ScramError::Binding));
    // A mechanism and a header that contradict each other.
    for (bound, ours) in [(true, Ours::Unable), (true, Ours::NotOffered), (false, Ours::Bound(HASH))] {
        let error = exchange(&keys, bound, ours, Theirs::Bindable(HASH)).unwrap_err();
        assert!(matches!(error, ScramError::Malformed(_)), "{error}");
    }
}

#[test]
fn another_password_proves_nothing() {
    let salt = BASE64.decode(SALT.as_bytes()).unwrap();
    let keys = derive(b"pencils", &salt, COUNT);
    let outcome = exchange(&keys, false, client::Channel::Unable, server::Channel::Unbound);
    assert_eq!(outcome, Err(ScramError::Proof));
}

#[test]
fn a_server_that_does_not_know_us_is_not_believed() {
    let (client, _) = client::Exchange::begin(client::Channel::Unable, &[1; NONCE_BYTES]);
    let ours = BASE64.encode(&[1; NONCE_BYTES]);
    let challenge = client.hear(format!("r={ours}x,s={SALT},i=4096").as_bytes()).unwrap();
    let (unverified, _) = challenge.prove(&pencil());
    let forged = format!("v={}", BASE64.encode(&[0; 32]));
    assert_eq!(unverified.verify(forged.as_bytes()), Err(ScramError::Proof));
}

#[test]
fn a_hostile_server_is_stopped_early() {
    let hear = |first: String| {
        let (client, _) = client::Exchange::begin(client::Channel::Unable, &[1; NONCE_BYTES]);
        client.hear(first.as_bytes()).map(drop)
    };
    let ours = BASE64.encode(&[1; NONCE_BYTES]);
    assert_eq!(hear(format!("r={ours}x,s={SALT},i=4096")), Ok(()));
    assert_eq!(hear(format!("r={ours}x,s={SALT},i=4096,x=1")), Ok(()), "extensions are passed over");
    for wrong in [
        String::new(),
        format!("r={ours},s={SALT},i=4096"),
        format!("r=other,s={SALT},i=4096"),
        format!("r={ours}{},s={SALT},i=4096", "x".repeat(NONCE_MAX)),
        format!("r={ours}x,s=,i=4096"),
        format!("r={ours}x,s={},i=4096", BASE64.encode(&[0; 300])),
        format!("r={ours}x,s={SALT},i=0"),
        format!("r={ours}x,s={SALT},i=4294967295"),
        format!("r={ours}x,s={SALT}"),
        format!("m=x,r={ours}x,s={SALT},i=4096"),
        format!("r={ours}\u{e4},s={SALT},i=4096"),
    ] {
        assert!(hear(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn a_hostile_client_is_stopped_early() {
    let begin = |first: &str| {
        let (own, channel) = ([2; NONCE_BYTES], server::Channel::Unbound);
        server::Exchange::begin(first.as_bytes(), false, channel, verifier(), &own).map(|(it, _)| it)
    };
    for wrong in [
        "",
        "n,,",
        "n,n=,r=abc",
        "n,a=admin,n=,r=abc",
        "x,,n=,r=abc",
        "n,,m=x,n=,r=abc",
        "n,,n=,r=",
        "n,,n=,r=a b",
        "n,,r=abc",
        &format!("n,,n=,r={}", "x".repeat(NONCE_MAX)),
    ] {
        assert!(begin(wrong).is_err(), "{wrong}");
    }
    let proof = BASE64.encode(&[0; 32]);
    let nonce = format!("abc{}", BASE64.encode(&[2; NONCE_BYTES]));
    for (wrong, error) in [
        (String::new(), ScramError::Malformed("no proof")),
        (format!("c=biws,r={nonce}"), ScramError::Malformed("no proof")),
        (format!("c=biws,r={nonce},p=AA=="), ScramError::Malformed("the proof")),
        (format!("c=eSws,r={nonce},p={proof}"), ScramError::Binding),
        (format!("c=biws,r=abc,p={proof}"), ScramError::Malformed("the nonce is another one")),
        (format!("r={nonce},c=biws,p={proof}"), ScramError::Malformed("no channel binding")),
        (format!("c=biws,r={nonce},p={proof}"), ScramError::Proof),
    ] {
        let outcome = begin("n,,n=,r=abc").unwrap().finish(wrong.as_bytes()).map(drop);
        assert_eq!(outcome, Err(error), "{wrong}");
    }
}

#[test]
fn passwords_are_prepared_as_rfc_4013_says() {
    // RFC 4013 §3: soft hyphens go, compatibility forms are what they stand for.
    assert_eq!(prepared("I\u{ad}X".as_bytes()), b"IX");
    assert_eq!(prepared("\u{aa}".as_bytes()), b"a");
    assert_eq!(prepared("\u{2168}".as_bytes()), b"IX");
    // What has no normal form, and what is no text, is taken as it is.
    assert_eq!(prepared(b"a\x07"), b"a\x07");
    assert_eq!(prepared(b"\xff"), b"\xff");
}

#[test]
fn keys_are_not_shown() {
    assert_eq!(format!("{:?}", pencil()), "Keys(…)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Without NUL, which no password of PostgreSQL holds: HMAC fills its key up with it, so that a password
    // would be as good as the same one with zeros behind it (RFC 2104 §2).
    #[test]
    fn who_knows_the_password_is_let_in_and_nobody_else(
        password in "[^\\x00]{0,12}", offered in "[^\\x00]{0,12}",
        salt in proptest::collection::vec(any::<u8>(), 1..40),
    ) {
        let count = NonZeroU32::new(2).unwrap();
        let verifier = derive(password.as_bytes(), &salt, count).verifier(&salt, count);
        let (client, first) = client::Exchange::begin(client::Channel::Unable, &[1; NONCE_BYTES]);
        let begun = server::Exchange::begin(
            first.as_bytes(), false, server::Channel::Unbound, verifier, &[2; NONCE_BYTES],
        );
        let (server, answer) = begun.unwrap();
        let challenge = client.hear(answer.as_bytes()).unwrap();
        let (_, last) = challenge.prove(&derive(offered.as_bytes(), &salt, count));
        let same = prepared(password.as_bytes()) == prepared(offered.as_bytes());
        prop_assert_eq!(server.finish(last.as_bytes()).is_ok(), same);
    }

    #[test]
    fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..80), bound: bool) {
        let channel = server::Channel::Bindable(HASH);
        let _ = server::Exchange::begin(&bytes, bound, channel, verifier(), &[2; NONCE_BYTES]);
        let (client, first) = client::Exchange::begin(client::Channel::Unable, &[1; NONCE_BYTES]);
        let unbound = server::Channel::Unbound;
        let begun = server::Exchange::begin(first.as_bytes(), false, unbound, verifier(), &[2; NONCE_BYTES]);
        prop_assert!(begun.unwrap().0.finish(&bytes).is_err());
        prop_assert!(client.hear(&bytes).is_err());
    }
}
