//! Whether a command came to what was expected of it, and what it came to instead.

use kiln_model::instance::{ExitStatus, ExpectedRun};
use regex::RegexBuilder;

use super::super::exec::{ExecReport, PRINTED_BYTES_MAX, Printed};
use super::attempt::Outcome;

/// A compiled pattern may not take more memory. The language refuses what does, by the same bound.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// What is shown of an output: expected and found stand in one line of a verdict.
const EXCERPT_CHARS_MAX: usize = 120;
/// How much is shown before the first difference.
const EXCERPT_CHARS_BEFORE: usize = 20;

pub(super) fn judge(report: ExecReport, expected: Option<&ExpectedRun>) -> Outcome {
    let ExecReport { answer, printed } = report;
    let status = answer.into_status()?;
    let Some(expected) = expected else {
        let seen = format!("the command {status}");
        return if status.is_success() { Ok("the command succeeds".into()) } else { Err(seen) };
    };
    if status != ExitStatus::Code(expected.exit) {
        return Err(format!("the command {status}, expected was {}{}", expected.exit, told(&printed)));
    }
    output(&printed, expected)?;
    Ok("the command does what is expected".into())
}

fn output(printed: &Printed, expected: &ExpectedRun) -> Result<(), String> {
    let ExpectedRun { exit: _, stdout, contains, matches } = expected;
    if printed.is_cut && (stdout.is_some() || !contains.is_empty() || !matches.is_empty()) {
        let kib = PRINTED_BYTES_MAX >> 10;
        return Err(format!("the command printed more than {kib} KiB, which is not looked through"));
    }
    let both = [&printed.stdout, &printed.stderr];
    if let Some(wanted) = stdout {
        let (wanted, found) = (wanted.trim_end_matches('\n'), printed.stdout.trim_end_matches('\n'));
        if wanted != found {
            let same = wanted.chars().zip(found.chars()).take_while(|(a, b)| a == b).count();
            let [wanted, found] = [wanted, found].map(|text| excerpt(text, same));
            return Err(format!("the command printed {found}, expected was {wanted}"));
        }
    }
    if let Some(text) = contains.iter().find(|text| !both.iter().any(|output| output.contains(*text))) {
        return Err(format!("the command did not print {}{}", excerpt(text, 0), told(printed)));
    }
    for pattern in matches {
        let regex = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
        let regex = regex.map_err(|_| format!("{} is no regular expression", excerpt(pattern, 0)))?;
        if !both.iter().any(|output| regex.is_match(output)) {
            let pattern = excerpt(pattern, 0);
            return Err(format!("the command printed nothing that matches {pattern}{}", told(printed)));
        }
    }
    Ok(())
}

/// What it printed, to follow on what is wrong with it: its last words, which tell most.
fn told(printed: &Printed) -> String {
    let shown = |what: &str, text: &str| match text.trim_end() {
        "" => String::new(),
        text => format!("; {what}: {}", excerpt(text, text.chars().count())),
    };
    let (stdout, stderr) = (shown("stdout", &printed.stdout), shown("stderr", &printed.stderr));
    if stdout.is_empty() && stderr.is_empty() { "; it printed nothing".into() } else { stdout + &stderr }
}

/// A text between quotes, in one line and without control characters; of a long one what is around a place.
fn excerpt(text: &str, around: usize) -> String {
    let count = text.chars().count();
    let from = if count <= EXCERPT_CHARS_MAX {
        0
    } else {
        around.saturating_sub(EXCERPT_CHARS_BEFORE).min(count - EXCERPT_CHARS_MAX)
    };
    let shown: String = text.chars().skip(from).take(EXCERPT_CHARS_MAX).collect();
    let (before, after) =
        (if from > 0 { "…" } else { "" }, if from + EXCERPT_CHARS_MAX < count { "…" } else { "" });
    format!("\"{before}{}{after}\"", shown.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::super::super::exec::ExecAnswer;
    use super::*;

    fn ran(code: u8, stdout: &str, stderr: &str) -> ExecReport {
        let printed = Printed { stdout: stdout.into(), stderr: stderr.into(), is_cut: false };
        ExecReport { answer: ExecAnswer::Code(code), printed }
    }

    fn of(stdout: Option<&str>, contains: &[&str], matches: &[&str]) -> ExpectedRun {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        ExpectedRun {
            exit: 0,
            stdout: stdout.map(str::to_owned),
            contains: owned(contains),
            matches: owned(matches),
        }
    }

    #[test]
    fn the_exit_code_counts_and_another_is_told_with_what_was_printed() {
        let three = ExpectedRun { exit: 3, ..ExpectedRun::default() };
        assert!(judge(ran(3, "", ""), Some(&three)).is_ok());
        assert_eq!(
            judge(ran(1, "", "no \x1b[2Jsuch file\n"), Some(&three)),
            Err("the command exited with code 1, expected was 3; stderr: \"no \\u{1b}[2Jsuch file\"".into())
        );
        assert_eq!(judge(ran(1, "", ""), None), Err("the command exited with code 1".into()));
        assert_eq!(
            judge(ExecAnswer::TimedOut.into(), Some(&three)),
            ExecAnswer::TimedOut.into_status().map(|_| String::new())
        );
    }

    #[test]
    fn output_is_compared_but_for_newlines_at_its_end() {
        let exact = of(Some("a\nb"), &[], &[]);
        assert!(judge(ran(0, "a\nb\n", "noise"), Some(&exact)).is_ok());
        assert_eq!(
            judge(ran(0, "a\nc\n", ""), Some(&exact)),
            Err("the command printed \"a\\nc\", expected was \"a\\nb\"".into())
        );
        assert!(judge(ran(0, "", ""), Some(&of(Some(""), &[], &[]))).is_ok());
    }

    #[test]
    fn a_difference_deep_in_a_long_output_is_what_is_shown() {
        let (wanted, found) =
            (format!("{}left{}", "x".repeat(5000), "y".repeat(5000)), format!("{}right", "x".repeat(5000)));
        let failure = judge(ran(0, &found, ""), Some(&of(Some(&wanted), &[], &[]))).unwrap_err();
        assert!(failure.contains("xxxleftyyy") && failure.contains("xxxright\""), "{failure}");
        assert!(failure.chars().count() < 400, "{failure}");
    }

    #[test]
    fn each_text_and_each_pattern_must_be_in_one_of_the_outputs() {
        let asked = of(None, &["openjdk"], &[r"^openjdk 21\.\d+"]);
        assert!(judge(ran(0, "", "openjdk 21.0.2"), Some(&asked)).is_ok());
        assert_eq!(
            judge(ran(0, "", "openjdk 17"), Some(&asked)).unwrap_err(),
            "the command printed nothing that matches \"^openjdk 21\\\\.\\\\d+\"; stderr: \"openjdk 17\""
        );
        assert_eq!(
            judge(ran(0, "", ""), Some(&asked)).unwrap_err(),
            "the command did not print \"openjdk\"; it printed nothing"
        );
    }

    #[test]
    fn what_was_cut_is_never_taken_for_the_whole() {
        let mut report = ran(0, "ok", "");
        report.printed.is_cut = true;
        assert!(
            judge(report.clone(), Some(&of(None, &["ok"], &[]))).unwrap_err().contains("more than 64 KiB")
        );
        assert!(judge(report, Some(&ExpectedRun::default())).is_ok());
    }
}
