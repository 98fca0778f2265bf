//! `[group.NAME]`.

use crate::key::{Block, Kind, key};

pub(crate) static GROUP: Block = Block {
    path: "group.*",
    meaning: "Names that `allow.identity` and `approval.by` speak of together, as \"group:NAME\".",
    keys: &[key("members", Kind::List(&Kind::Identity))
        .or_else("Those alone whose token names the group (`tieline token create NAME --groups`).")
        .means(
            "Who belongs to the group, beside those whose token names it: the names that they prove, letter \
             by letter. A change of it is obeyed by connections that live, too.",
        )
        .example(r#"["ana", "bob@example.com", "spiffe://example.com/billing"]"#)],
    later: &[],
};
