//! What is printed in the end.

use std::time::Duration;

/// Rows in the order in which they were measured.
#[derive(Default)]
pub(super) struct Table(Vec<[String; 4]>);

impl Table {
    /// Adds a time beside its peer's.
    pub(super) fn row(&mut self, what: &str, kiln: Duration, peer: Option<(&str, Duration)>) {
        let (beside, ratio) = match peer {
            Some((name, time)) => (
                format!("{} ({name})", shown(time)),
                format!("{:.2}", kiln.as_secs_f64() / time.as_secs_f64().max(1e-9)),
            ),
            None => ("-".into(), "-".into()),
        };
        self.0.push([what.into(), shown(kiln), beside, ratio]);
    }

    /// Adds a fact that is not a time.
    pub(super) fn fact(&mut self, what: &str, kiln: String, peer: Option<String>) {
        self.0.push([what.into(), kiln, peer.unwrap_or_else(|| "-".into()), "-".into()]);
    }

    /// Prints the table as Markdown, so that it can be pasted where it is quoted.
    pub(super) fn print(&self) {
        println!("\n| what | Kiln | peer, same run | Kiln / peer |\n|---|---|---|---|");
        for row in &self.0 {
            println!("| {} |", row.join(" | "));
        }
    }
}

fn shown(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds => format!("{:.1} ms", seconds * 1e3),
    }
}
