//! Rules of publishing and removing, case by case.

use super::*;
use crate::model::NamespaceId;

fn key() -> ConfigKey {
    ConfigKey::new(&NamespaceId::default(), "g", "d")
}

fn origin(now_ms: i64) -> Origin {
    let text = |what: &str| format!("{what}{now_ms}");
    Origin {
        now_ms,
        user: text("u"),
        ip: text("ip"),
        message: text("m"),
        history_max: 100,
    }
}

fn numbers(number: u64) -> Numbers {
    Numbers {
        config: ConfigId(number),
        history: HistoryId(number),
    }
}

fn publish_of(content: &str, now_ms: i64) -> Publish {
    Publish::new(key(), content.to_owned(), origin(now_ms))
}

fn formal_after(edit: Edit) -> Detail {
    match edit.after {
        After::Formal(detail) => *detail,
        other => panic!("{other:?}"),
    }
}

fn grays_after(edit: &Edit) -> GrayVersions {
    match &edit.after {
        After::Gray(_, all) | After::NoGray(_, all) => all.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn attributes_are_overwritten_but_app_name_and_tags_stay_unless_given() {
    let none = GrayVersions::default();
    let first = Publish {
        app_name: Some("app".into()),
        tags: Some(vec!["t1".into(), "t2".into()]),
        description: "d".into(),
        purpose: "u".into(),
        effect: "e".into(),
        schema: "s".into(),
        encrypted_data_key: "k".into(),
        kind: ConfigType::Yaml,
        ..publish_of("one", 1)
    };
    let edit = publish(
        Before {
            formal: None,
            grays: &none,
        },
        &first,
        numbers(7),
    )
    .expect("inserts");
    assert_eq!(
        (edit.history.operation, &edit.history.content[..]),
        (Operation::Insert, &b"one"[..])
    );
    let inserted = formal_after(edit);

    let second = publish_of("two", 2);
    let before = Before {
        formal: Some(&inserted.entry),
        grays: &none,
    };
    let edit = publish(before, &second, numbers(8)).expect("updates");
    assert!(edit.noticeable);
    // The row holds what was there before, and tells who replaced it.
    assert_eq!(
        (edit.history.operation, &edit.history.content[..]),
        (Operation::Update, &b"one"[..])
    );
    assert_eq!(
        (edit.history.kind, &*edit.history.user, edit.history.at_ms),
        (ConfigType::Yaml, "u2", 2)
    );
    let updated = formal_after(edit);
    assert_eq!(
        (
            updated.entry.id,
            updated.entry.created_ms,
            updated.entry.modified_ms
        ),
        (ConfigId(7), 1, 2)
    );
    assert_eq!((updated.entry.app_name(), updated.entry.tags().len()), ("app", 2));
    assert_eq!((updated.description.as_str(), updated.purpose.as_str()), ("", ""));
    assert_eq!((updated.effect.as_str(), updated.schema.as_str()), ("", ""));
    assert_eq!(
        (updated.entry.kind, updated.entry.encrypted_data_key()),
        (ConfigType::Text, "")
    );
    assert_eq!((updated.user.as_str(), updated.ip.as_str()), ("u2", "ip2"));

    let third = Publish {
        app_name: Some(String::new()),
        tags: Some(vec![]),
        ..publish_of("two", 3)
    };
    let before = Before {
        formal: Some(&updated.entry),
        grays: &none,
    };
    let edit = publish(before, &third, numbers(9)).expect("updates");
    assert!(!edit.noticeable, "the content is the same");
    assert_eq!(formal_after(edit).entry.labels, None);
}

#[test]
fn compare_and_set_inserts_what_is_absent_and_refuses_another_md5() {
    let none = GrayVersions::default();
    let cas = |md5: Md5| Publish {
        expectation: Expectation::Md5(md5),
        ..publish_of("new", 1)
    };
    let absent = Before {
        formal: None,
        grays: &none,
    };
    let inserted = formal_after(publish(absent, &cas(Md5::of(b"any")), numbers(1)).expect("inserts"));
    let present = Before {
        formal: Some(&inserted.entry),
        grays: &none,
    };
    assert_eq!(
        publish(present, &cas(Md5::of(b"any")), numbers(2)),
        Err(Refusal::CasMismatch)
    );
    assert!(publish(present, &cas(Md5::of(b"new")), numbers(2)).is_ok());
    // A variant is compared with itself, not with the formal version.
    let beta = Publish {
        variant: Variant::beta("10.0.0.1"),
        ..cas(Md5::of(b"any"))
    };
    assert!(publish(present, &beta, numbers(3)).is_ok());
}

#[test]
fn a_removal_keeps_the_content_in_history_and_absence_is_nothing() {
    let none = GrayVersions::default();
    let inserted = formal_after(
        publish(
            Before {
                formal: None,
                grays: &none,
            },
            &publish_of("one", 1),
            numbers(1),
        )
        .expect("inserts"),
    );
    let removal = Removal {
        key: key(),
        variant: None,
        origin: origin(2),
    };
    let edit = remove(
        Before {
            formal: Some(&inserted.entry),
            grays: &none,
        },
        &removal,
        numbers(2),
    )
    .expect("removes");
    assert_eq!(edit.after, After::NoFormal);
    assert_eq!(
        (edit.history.operation, &edit.history.content[..]),
        (Operation::Delete, &b"one"[..])
    );
    assert_eq!(
        remove(
            Before {
                formal: None,
                grays: &none
            },
            &removal,
            numbers(3)
        ),
        None
    );
    let gray = Removal {
        variant: Some("beta".into()),
        ..removal
    };
    assert_eq!(
        remove(
            Before {
                formal: Some(&inserted.entry),
                grays: &none
            },
            &gray,
            numbers(3)
        ),
        None
    );
}

#[test]
fn variants_are_tried_by_priority_and_limited() {
    let mut grays = GrayVersions::default();
    for (number, variant) in [Variant::tag("t1"), Variant::beta("10.0.0.1")]
        .into_iter()
        .enumerate()
    {
        let one = Publish {
            variant,
            ..publish_of(&format!("v{number}"), 1)
        };
        let edit = publish(
            Before {
                formal: None,
                grays: &grays,
            },
            &one,
            numbers(number as u64),
        )
        .expect("publishes");
        assert!(edit.noticeable);
        assert_eq!(edit.history.variant, one.variant);
        grays = grays_after(&edit);
    }
    let client = super::super::Client {
        ip: "10.0.0.1",
        tag: Some("t1"),
    };
    assert_eq!(grays.select(&client).map(|gray| &*gray.name), Some("beta"));

    // A changed rule is noticeable though the content stays.
    let moved = Publish {
        variant: Variant::beta("10.0.0.2"),
        ..publish_of("v1", 2)
    };
    let edit = publish(
        Before {
            formal: None,
            grays: &grays,
        },
        &moved,
        numbers(5),
    )
    .expect("publishes");
    assert!(edit.noticeable);
    assert_eq!(
        edit.history.variant,
        Variant::beta("10.0.0.1"),
        "what was there before"
    );

    for number in grays.as_slice().len()..VARIANTS_MAX {
        let one = Publish {
            variant: Variant::tag(&format!("n{number}")),
            ..publish_of("x", 3)
        };
        grays = grays_after(
            &publish(
                Before {
                    formal: None,
                    grays: &grays,
                },
                &one,
                numbers(9),
            )
            .expect("publishes"),
        );
    }
    let eleventh = Publish {
        variant: Variant::tag("one-more"),
        ..publish_of("x", 3)
    };
    let before = Before {
        formal: None,
        grays: &grays,
    };
    assert_eq!(
        publish(before, &eleventh, numbers(9)),
        Err(Refusal::Gray(GrayError::TooMany))
    );
    let known = Publish {
        variant: Variant::tag("n5"),
        ..publish_of("y", 3)
    };
    assert!(publish(before, &known, numbers(9)).is_ok());
}
