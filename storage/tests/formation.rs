//! Folders that are not ours, not ready, or from the future.

use raft::{NodeId, Persist};
use storage::{Folder, OpenError, Stage};

use crate::support::{CLUSTER, INCARNATION, NODE, Node, form, members, open, temp_dir};

#[test]
fn a_founder_and_a_joiner_form_their_folders() {
    let dir = temp_dir();
    let mut folder = Folder::open(dir.path()).unwrap();
    assert_eq!(folder.stage().unwrap(), Stage::Empty);
    folder.begin(NodeId(2), INCARNATION, None).unwrap();
    let begun = Stage::Begun {
        node_id: NodeId(2),
        incarnation: INCARNATION,
        cluster_id: None,
    };
    assert_eq!(folder.stage().unwrap(), begun);
    drop(folder);
    let mut folder = Folder::open(dir.path()).unwrap();
    assert_eq!(folder.stage().unwrap(), begun);
    folder.finish(CLUSTER, None).unwrap();
    assert_eq!(folder.stage().unwrap(), Stage::Formed);
    drop(folder);
    let opened = open(dir.path()).unwrap();
    assert_eq!(opened.cluster_id, CLUSTER);
    assert_eq!(opened.recovered.configurations, vec![]);
    assert_eq!(opened.recovered.last.index.0, 0);
    drop(opened);
    // What a joiner receives it keeps.
    let mut node = Node::open(dir.path());
    let entry = node.next_entry(1, raft::EntryKind::Configuration, &members(&[1, 2]).encode());
    node.persist(Persist {
        entries: vec![entry],
        ..Persist::default()
    })
    .unwrap();
    node.close();
    assert_eq!(open(dir.path()).unwrap().recovered.configurations.len(), 1);
}

#[test]
fn steps_out_of_order_are_refused() {
    let dir = temp_dir();
    let mut folder = Folder::open(dir.path()).unwrap();
    assert!(matches!(
        folder.finish(CLUSTER, None),
        Err(OpenError::WrongStage { .. })
    ));
    drop(folder);
    form(dir.path(), &[1]);
    let mut folder = Folder::open(dir.path()).unwrap();
    assert!(matches!(
        folder.begin(NODE, INCARNATION, None),
        Err(OpenError::WrongStage { .. })
    ));
}

#[test]
fn r28_the_second_process_is_refused_and_told_who_holds_the_folder() {
    let dir = temp_dir();
    form(dir.path(), &[1]);
    let node = Node::open(dir.path());
    let Err(error) = Folder::open(dir.path()) else {
        panic!("two owners")
    };
    assert!(
        error
            .to_string()
            .contains(&format!("process {}", std::process::id())),
        "{error}"
    );
    node.close();
    Node::open(dir.path()).close();
}

#[test]
fn r28_the_lock_outlives_all_but_the_last_handle() {
    let dir = temp_dir();
    form(dir.path(), &[1]);
    let opened = open(dir.path()).unwrap();
    let tables = opened.tables.clone();
    drop(opened);
    assert!(matches!(Folder::open(dir.path()), Err(OpenError::Locked { .. })));
    drop(tables);
    assert!(Folder::open(dir.path()).is_ok());
}

#[test]
fn r31_a_folder_of_r_nacos_is_left_untouched() {
    for name in ["index", "log_1", "snapshot_12"] {
        let dir = temp_dir();
        std::fs::write(dir.path().join(name), b"theirs").unwrap();
        let Err(error) = Folder::open(dir.path()) else {
            panic!("{name} was not recognised")
        };
        assert!(matches!(error, OpenError::ForeignFolder { .. }), "{error}");
        assert!(error.to_string().contains("RNACOS_DATA_DIR"), "{error}");
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "something was put beside it"
        );
    }
}

#[test]
fn r29_a_newer_format_is_refused_with_both_versions() {
    let dir = temp_dir();
    form(dir.path(), &[1]);
    let path = dir.path().join("FORMAT");
    let text = std::fs::read_to_string(&path)
        .unwrap()
        .replace("rnacos-format 1", "rnacos-format 2");
    std::fs::write(&path, text + "and lines nobody knows\n").unwrap();
    let Err(error) = Folder::open(dir.path()) else {
        panic!("opened")
    };
    assert!(
        matches!(
            error,
            OpenError::NewerFormat {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_damaged_format_file_is_refused() {
    let dir = temp_dir();
    form(dir.path(), &[1]);
    let path = dir.path().join("FORMAT");
    let good = std::fs::read(&path).unwrap();
    for byte in 0..good.len() {
        let mut bytes = good.clone();
        bytes[byte] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(Folder::open(dir.path()).is_err(), "byte {byte} passed");
    }
}

#[test]
fn r47_format_missing_with_a_mark_of_a_started_node_is_restored() {
    let dir = temp_dir();
    form(dir.path(), &[1]);
    let mut node = Node::open(dir.path());
    node.append(1, &[b"kept"]).unwrap();
    node.close();
    std::fs::remove_file(dir.path().join("FORMAT")).unwrap();
    assert_eq!(Folder::open(dir.path()).unwrap().stage().unwrap(), Stage::Formed);
    let node = Node::open(dir.path());
    assert!(node.findings.contains(&storage::Finding::FormatRestored));
    assert_eq!(node.recovered.last.index.0, 2);
    node.close();
    assert!(dir.path().join("FORMAT").is_file());
}

#[test]
fn r47_data_without_mark_and_format_is_refused_and_untouched() {
    let dir = temp_dir();
    form(dir.path(), &[1]);
    let mut node = Node::open(dir.path());
    node.append(1, &[b"somebody's"]).unwrap();
    node.close();
    for name in ["FORMAT", "mark"] {
        std::fs::remove_file(dir.path().join(name)).unwrap();
    }
    let mut folder = Folder::open(dir.path()).unwrap();
    let Err(error) = folder.stage() else {
        panic!("taken for empty")
    };
    assert!(matches!(error, OpenError::UnknownData { .. }), "{error}");
    assert!(
        error.to_string().contains("rnacos recover accept-loss"),
        "{error}"
    );
    assert!(folder.begin(NODE, INCARNATION, None).is_err());
    assert!(!dir.path().join("aside").exists());
    drop(folder);
    // Its operator may say that it is not needed: it is moved, and the folder is free.
    let report = storage::recover::accept_loss(dir.path()).unwrap();
    assert!(!report.findings.is_empty());
    assert_eq!(Folder::open(dir.path()).unwrap().stage().unwrap(), Stage::Empty);
    assert!(dir.path().join("aside").is_dir());
}

#[test]
fn r47_leftovers_of_an_interrupted_forming_are_moved_aside_not_deleted() {
    let dir = temp_dir();
    form(dir.path(), &[1]);
    for name in ["FORMAT", "mark"] {
        std::fs::remove_file(dir.path().join(name)).unwrap();
    }
    let mut folder = Folder::open(dir.path()).unwrap();
    assert_eq!(folder.stage().unwrap(), Stage::Empty);
    folder.begin(NODE, INCARNATION, Some(CLUSTER)).unwrap();
    let kept = std::fs::read_dir(dir.path().join("aside")).unwrap().count();
    assert_eq!(kept, 2, "wal and state");
}

#[test]
fn a_folder_that_cannot_be_made_says_so() {
    let dir = temp_dir();
    std::fs::write(dir.path().join("file"), b"").unwrap();
    let Err(error) = Folder::open(dir.path().join("file/data")) else {
        panic!("opened")
    };
    assert!(
        error.to_string().contains("check that the folder exists"),
        "{error}"
    );
}
