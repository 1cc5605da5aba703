//! The history as a page to look at: a lane per client, coloured by answer, faults as bands across.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::history::{Action, Answer, FaultSpan, Operation};

/// The page around the data. It draws on a canvas, since a run has tens of thousands of operations; the
/// wheel zooms, dragging moves, and pointing at an operation shows it. Nothing is loaded from elsewhere.
const PAGE: &str = include_str!("timeline.html");

/// Where the data goes.
const PLACE: &str = "/*DATA*/null";

/// Writes the page.
pub fn write(
    out: &mut impl Write,
    title: &str,
    operations: &[Operation],
    faults: &[FaultSpan],
) -> io::Result<()> {
    let data = json!({
        "title": title,
        "operations": operations.iter().map(row).collect::<Vec<_>>(),
        "faults": faults,
    });
    // `<` could end the script early.
    let data = data.to_string().replace('<', "\\u003c");
    out.write_all(PAGE.replacen(PLACE, &data, 1).as_bytes())
}

/// Client, node, from, to, class of the answer, words.
fn row(operation: &Operation) -> Value {
    let Operation {
        client,
        node,
        key,
        action,
        invoked,
        returned,
        answer,
    } = operation;
    let asked = match action {
        Action::Read => "read".to_owned(),
        Action::Write(value) => format!("write {value}"),
        Action::Delete => "delete".to_owned(),
        Action::Cas { expected, new } => format!("cas {expected} to {new}"),
    };
    let (class, answered) = match answer {
        Answer::Value(value) => ("read", format!("= {value}")),
        Answer::Applied => ("done", "done".to_owned()),
        Answer::Mismatch => ("mismatch", "mismatch".to_owned()),
        Answer::Unknown => ("unknown", "unknown".to_owned()),
        Answer::Refused => ("refused", "refused".to_owned()),
    };
    let who = if *client > super::CLIENTS {
        "listener, from its poll to its read,"
    } else {
        "client"
    };
    let words = format!(
        "{who} {client} at node {}: register {key}: {asked} {answered}",
        node + 1
    );
    json!([client, node, invoked.micros, returned.micros, class, words])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::history::Moment;

    #[test]
    fn the_page_holds_the_data_and_nothing_that_ends_its_script() {
        let moment = Moment { order: 0, micros: 5 };
        let operation = Operation {
            client: 1,
            node: 0,
            key: 3,
            action: Action::Write(9),
            invoked: moment,
            returned: moment,
            answer: Answer::Applied,
        };
        let mut page = Vec::new();
        write(&mut page, "</script><b>", &[operation], &[]).expect("to memory");
        let page = String::from_utf8(page).expect("text");
        assert!(page.contains("register 3: write 9 done"));
        assert!(!page.contains(PLACE));
        assert_eq!(page.matches("</script>").count(), 1);
    }
}
