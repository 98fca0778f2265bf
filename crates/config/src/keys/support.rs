//! `approval` and `timeouts` of a route to far services.

use std::time::Duration;

use crate::key::{Block, Kind, key};

const MILLISECOND: Duration = Duration::from_millis(1);

pub(crate) static APPROVAL: Block = Block {
    path: "listener.*.route.approval",
    meaning: "Who has to agree before a service is opened, and for how long that holds.",
    keys: &[
        key("by", Kind::List(&Kind::Identity))
            .or_else("Operators alone may answer.")
            .means(
                "Who may answer, as `tieline token` names them; \"group:NAME\" stands for the members of \
                 [group.NAME] and those whose token names it. Operators always may, and nobody answers \
                 himself.",
            )
            .example(r#"["lead", "group:leads"]"#),
        key("for", Kind::Duration { least: Duration::from_secs(1) })
            .or("2h")
            .means(
                "How long an approval holds for one person and one service, however many streams that are. \
                 Then they end with reason `approval-ended`, and the next one needs another. Whoever answers \
                 may give less.",
            )
            .example("30m"),
        key("wait", Kind::Duration { least: Duration::from_secs(1) })
            .or("15m")
            .means("How long a request waits for its answer; then it is refused with `refused:approval`.")
            .example("5m"),
    ],
    later: &[],
};

pub(crate) static FAR_TIMEOUTS: Block = Block {
    path: "listener.*.route.timeouts",
    meaning: "How long each stream to a far service may last. A change concerns those that are opened after \
              it.",
    keys: &[
        key("idle", Kind::Duration { least: MILLISECOND })
            .or_else("A stream may be silent for as long as it likes.")
            .means("A stream on which no byte moved either way for so long ends with reason `idle`.")
            .example("30m"),
        key("max_age", Kind::Duration { least: MILLISECOND })
            .or_else("A stream may live for ever.")
            .means("A stream that was open for so long ends with reason `max-age`, whatever goes through it.")
            .example("8h"),
    ],
    later: &[],
};
