//! Files within a Dockerfile: `<<EOF`, `<<-EOF`, `<<"EOF"`, and several of them on one line.

/// A file that was written below its instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heredoc {
    pub(crate) name: String,
    /// Whether variables in it mean their values where it is copied.
    pub(crate) expand: bool,
    /// Whether tabs at the beginnings of lines are dropped.
    pub(crate) chomp: bool,
    /// As it was written.
    pub(crate) content: String,
}

impl Heredoc {
    /// Returns the content without the tabs that `<<-` drops.
    pub(crate) fn chomped(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// The word that begins a heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opener {
    pub(super) name: String,
    pub(super) expand: bool,
    pub(super) chomp: bool,
}

/// Whether the instruction of a line may have heredocs: ADD, COPY and RUN, also after ONBUILD, and not in the JSON form.
pub(super) fn may_have(line: &str) -> bool {
    let mut rest = line.trim_start();
    let mut word = next_word(&mut rest);
    if word.eq_ignore_ascii_case("onbuild") {
        word = next_word(&mut rest);
    }
    let takes = ["add", "copy", "run"].iter().any(|name| word.eq_ignore_ascii_case(name));
    while rest.starts_with("--") {
        next_word(&mut rest);
    }
    takes && !(rest.starts_with('[') && serde_json::from_str::<Vec<String>>(rest.trim()).is_ok())
}

fn next_word<'a>(rest: &mut &'a str) -> &'a str {
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let word = &rest[..end];
    *rest = rest[end..].trim_start();
    word
}

/// Finds the heredocs that a line begins.
pub(super) fn openers(line: &str) -> Vec<Opener> {
    // Where a quote is not closed the shell sees something else than words, as BuildKit has it.
    raw_words(line).unwrap_or_default().iter().filter_map(|word| opener(word)).collect()
}

/// Reads one word as the beginning of a heredoc: `FD<<-NAME`.
pub(super) fn opener(word: &str) -> Option<Opener> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let words = raw_words(rest)?;
    let [raw] = &words[..] else { return None };
    let name = unquoted(raw);
    (!name.is_empty()).then(|| Opener { expand: name == *raw, name, chomp })
}

/// Splits at white space outside of quotes, and leaves quotes and escapes as they are; none where a quote is not closed.
fn raw_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut chars = text.chars();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => {
                word.push(c);
                word.extend(chars.next());
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    quote.is_none().then_some(words)
}

fn unquoted(raw: &str) -> String {
    let mut out = String::new();
    let mut chars = raw.chars();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => out.extend(chars.next()),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(line: &str) -> Vec<(String, bool, bool)> {
        openers(line).into_iter().map(|one| (one.name, one.expand, one.chomp)).collect()
    }

    #[test]
    fn heredocs_are_words_of_their_own() {
        let one = |name: &str, expand, chomp| vec![(name.to_owned(), expand, chomp)];
        assert_eq!(names("RUN <<EOF"), one("EOF", true, false));
        assert_eq!(names("RUN cat 3<<-\"E F\" > /x"), one("E F", false, true));
        assert_eq!(names("RUN cat <<'EOF'"), one("EOF", false, false));
        assert_eq!(names("RUN cat <<E\\OF"), one("EOF", false, false));
        assert_eq!(names("COPY <<a <<b /"), [one("a", true, false), one("b", true, false)].concat());
        for none in
            ["RUN echo '<<EOF'", "RUN cat<<EOF", "RUN cat <<<word", "RUN cat << EOF", "RUN echo \"<<EOF"]
        {
            assert_eq!(names(none), [], "{none}");
        }
    }

    #[test]
    fn only_some_instructions_have_them() {
        for yes in ["RUN <<E", "copy --chmod=1 <<E /", "ONBUILD RUN <<E", "ADD <<E /", "RUN [ <<E"] {
            assert!(may_have(yes), "{yes}");
        }
        for no in ["ENV A=<<E", "RUN [\"<<E\"]", "LABEL x=<<E", "ONBUILD ENV <<E"] {
            assert!(!may_have(no), "{no}");
        }
    }
}
