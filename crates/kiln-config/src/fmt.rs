//! `kiln fmt`: one layout for every stack, as `terraform fmt` lays out.
//!
//! Only blanks change: tokens stay as they are, strings, heredocs and comments to the byte. So the meaning can't change.

use std::ops::Range;

use unicode_width::UnicodeWidthChar;

use crate::diagnostic::{Diagnostic, Problem};
use crate::lex::{Token, TokenKind, lex};
use crate::load::strings_near_sensitive;
use crate::parse;
use crate::source::{FileId, SourceSet, Span};

/// Returns the text in the one layout: two blanks per level, `=` and trailing comments aligned on consecutive lines.
///
/// Keeps comments. Formatting twice changes nothing.
///
/// # Errors
/// The first syntax error: what can't be parsed is not touched.
pub fn fmt(text: &str) -> Result<String, Box<Diagnostic>> {
    let sources: SourceSet = [("", text)].into_iter().collect();
    let mut problems = Vec::new();
    for (id, file) in sources.files() {
        problems.extend(parse::parse_file(id, file).1);
    }
    let redacted = std::sync::Arc::new(strings_near_sensitive("", &sources));
    if let Some(problem) = problems.into_iter().next() {
        return Err(Box::new(problem.resolve(&sources, &redacted)));
    }
    let text = &sources.file(FileId(0)).map_or("", |f| &f.text);
    let (tokens, errors) = lex(text);
    if let Some(error) = errors.first() {
        let span = Span::new(FileId(0), error.range.start, error.range.end);
        let problem = Problem::new("syntax", span, error.message.clone());
        return Err(Box::new(problem.resolve(&sources, &redacted)));
    }
    let mut lines = split(&tokens, text);
    indent(&mut lines, text);
    for line in &mut lines {
        space(line, text);
    }
    align(&mut lines, text, Cell::Assign);
    align(&mut lines, text, Cell::Comment);
    Ok(print(&lines, text))
}

/// A token with the blanks before it.
struct Piece {
    kind: TokenKind,
    range: Range<usize>,
    before: usize,
}

/// A line: the pieces of it, the index where its assignment begins, and the index of its trailing comment.
#[derive(Default)]
struct Line {
    pieces: Vec<Piece>,
    assign: Option<usize>,
    comment: Option<usize>,
}

#[derive(Clone, Copy)]
enum Cell {
    Assign,
    Comment,
}

impl Piece {
    fn text<'a>(&self, text: &'a str) -> &'a str {
        &text[self.range.clone()]
    }

    fn bracket(&self) -> isize {
        match self.kind {
            TokenKind::Open => 1,
            TokenKind::Close => -1,
            _ => 0,
        }
    }
}

impl Line {
    fn start_of(&self, cell: Cell) -> Option<usize> {
        match cell {
            Cell::Assign => self.assign,
            Cell::Comment => self.comment,
        }
    }

    /// The columns of the last line of what comes before a piece.
    fn columns(&self, end: usize, text: &str) -> usize {
        let mut columns = 0;
        for piece in &self.pieces[..end] {
            let shown = piece.text(text);
            columns += piece.before;
            if let Some((_, last)) = shown.rsplit_once('\n') {
                columns = 0;
                columns += width(last);
            } else {
                columns += width(shown);
            }
        }
        columns
    }
}

fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

fn split(tokens: &[Token], text: &str) -> Vec<Line> {
    let mut lines = vec![Line::default()];
    for token in tokens {
        if token.kind == TokenKind::Newline {
            lines.push(Line::default());
            continue;
        }
        let piece = Piece { kind: token.kind, range: token.range.clone(), before: 0 };
        lines.last_mut().expect("never empty").pieces.push(piece);
    }
    for line in &mut lines {
        mark_cells(line, text);
    }
    lines
}

fn mark_cells(line: &mut Line, text: &str) {
    let mut end = line.pieces.len();
    if end > 1 && line.pieces[end - 1].kind == TokenKind::LineComment {
        end -= 1;
        line.comment = Some(end);
    }
    let Some(at) = line.pieces[..end].iter().position(|p| p.kind == TokenKind::Equal) else { return };
    let net: isize = line.pieces[at..end].iter().map(Piece::bracket).sum();
    // A value that goes on in the next line is not aligned: it would move with its neighbours' names.
    let multi_line =
        line.pieces[at..end].iter().any(|p| p.kind != TokenKind::Heredoc && p.text(text).contains('\n'));
    if at > 0 && net == 0 && !multi_line {
        line.assign = Some(at);
    }
}

/// Indents by brackets: a line that opens more than it closes is one level, however many it opens.
fn indent(lines: &mut [Line], text: &str) {
    let mut levels: Vec<isize> = Vec::new();
    for line in lines {
        let Some(first) = line.pieces.first() else { continue };
        let _ = first.text(text);
        let net: isize = line.pieces.iter().map(Piece::bracket).sum();
        if net < 0 {
            let mut closed = -net;
            while closed > 0 {
                let Some(top) = levels.last_mut() else { break };
                if closed < *top {
                    *top -= closed;
                    break;
                }
                closed -= *top;
                levels.pop();
            }
        }
        line.pieces[0].before = 2 * levels.len();
        if net > 0 {
            levels.push(net);
        }
    }
}

fn space(line: &mut Line, text: &str) {
    for i in 1..line.pieces.len() {
        let before = i.checked_sub(2).map(|b| &line.pieces[b]);
        let wanted = wants_space(before, &line.pieces[i - 1], &line.pieces[i], text);
        line.pieces[i].before = usize::from(wanted);
    }
    if let Some(comment) = line.comment {
        line.pieces[comment].before = 1;
    }
}

/// Whether a blank stands between two neighbours, as `terraform fmt` decides it.
fn wants_space(before: Option<&Piece>, left: &Piece, right: &Piece, text: &str) -> bool {
    let (l, r) = (left.text(text), right.text(text));
    let operand_before = before.is_some_and(|b| {
        matches!(b.kind, TokenKind::Ident | TokenKind::Number | TokenKind::Quoted | TokenKind::Close)
    });
    // In a `for`, `in` and `if` stand after an operand, where no name of a function or collection can.
    let keyword = left.kind == TokenKind::Ident && matches!(l, "in" | "if") && operand_before;
    match () {
        () if right.kind == TokenKind::BlockComment || left.kind == TokenKind::BlockComment => true,
        () if l == "::" || r == "::" => false,
        () if left.kind == TokenKind::Dot || right.kind == TokenKind::Dot => false,
        () if right.kind == TokenKind::Comma || r == "..." => false,
        () if left.kind == TokenKind::Comma || keyword => true,
        () if left.kind == TokenKind::Ident && r == "(" => false,
        () if r == "[" && (matches!(left.kind, TokenKind::Ident | TokenKind::Number | TokenKind::Close)) => {
            false
        }
        () if l == "!" => false,
        () if l == "-" => operand_before,
        () if l == "{" && r == "}" => false,
        () if l == "{" || r == "}" => true,
        () if left.kind == TokenKind::Open || right.kind == TokenKind::Close => false,
        () => true,
    }
}

/// Aligns a cell over consecutive lines that have it.
fn align(lines: &mut [Line], text: &str, cell: Cell) {
    let mut start = 0;
    while start < lines.len() {
        if lines[start].start_of(cell).is_none() {
            start += 1;
            continue;
        }
        let length = lines[start..].iter().take_while(|l| l.start_of(cell).is_some()).count();
        let chain = &mut lines[start..start + length];
        let columns = |line: &Line| line.start_of(cell).map_or(0, |end| line.columns(end, text));
        let widest = chain.iter().map(columns).max().unwrap_or(0);
        for line in chain {
            let own = columns(line);
            if let Some(at) = line.start_of(cell) {
                line.pieces[at].before = widest - own + 1;
            }
        }
        start += length;
    }
}

fn print(lines: &[Line], text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in lines {
        for piece in &line.pieces {
            out.extend(std::iter::repeat_n(' ', piece.before));
            out.push_str(piece.text(text));
        }
        out.push('\n');
    }
    // The last newline of the text began a line of its own.
    while out.ends_with("\n\n") || out == "\n" {
        out.pop();
    }
    out
}
