//! Just enough reading of SQL to answer as a host would: tables, columns, simple conditions. No engine.

/// What a statement asks for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Select {
    pub(super) columns: Vec<Column>,
    /// Names behind FROM and JOIN, lower case; names of common table expressions left out.
    pub(super) tables: Vec<String>,
    /// Alternatives (OR) of conditions that must all hold (AND); empty holds always.
    pub(super) filter: Vec<Vec<Condition>>,
    pub(super) limit: Option<usize>,
    /// More than one SELECT, or set operations: columns and conditions are then not understood.
    pub(super) nested: bool,
}

/// One column of the answer: the name it gets, and where its value comes from.
#[derive(Debug, PartialEq)]
pub(super) enum Column {
    All,
    Literal {
        name: String,
        value: String,
    },
    Named {
        name: String,
        source: String,
    },
    Count {
        name: String,
    },
    /// An expression: answered with the first of these words that is a column.
    Computed {
        name: String,
        words: Vec<String>,
    },
}

/// `column operator value`, or the opposite of it.
#[derive(Debug, PartialEq)]
pub(super) struct Condition {
    pub(super) column: String,
    negated: bool,
    operator: Operator,
    /// One value; for `IN` as many as are listed.
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Is,
    IsNot,
    Less,
    LessOrIs,
    More,
    MoreOrIs,
    Like,
    In,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Number(String),
    Sign(String),
}

impl Token {
    fn is(&self, word: &str) -> bool {
        match self {
            Token::Word(text) | Token::Sign(text) => text.eq_ignore_ascii_case(word),
            Token::Text(_) | Token::Number(_) => false,
        }
    }

    fn text(&self) -> &str {
        match self {
            Token::Word(text) | Token::Text(text) | Token::Number(text) | Token::Sign(text) => text,
        }
    }
}

/// Reads one statement.
///
/// # Errors
/// SQLite's words for a statement that is no query.
pub(super) fn read(sql: &str) -> Result<Select, String> {
    let tokens = tokens(sql);
    let first = tokens.first().ok_or("not an error")?;
    if !first.is("select") && !first.is("with") {
        return Err(format!("near \"{}\": syntax error", first.text()));
    }
    let selects = tokens.iter().filter(|token| token.is("select")).count();
    let nested = selects > 1 || first.is("with");
    let mut select = Select {
        tables: tables(&tokens),
        nested,
        limit: limit(&tokens),
        ..Select::default()
    };
    if nested {
        select.columns.push(Column::All);
        return Ok(select);
    }
    let end = |words: &[&str]| {
        let found = tokens
            .iter()
            .position(|token| words.iter().any(|word| token.is(word)));
        found.unwrap_or(tokens.len())
    };
    let stops = ["where", "group", "order", "limit", ";"];
    let body = end(&["from"]).min(end(&stops));
    if body < 2 {
        return Err("incomplete input".to_owned());
    }
    for part in split(&tokens[1..body], ",") {
        select.columns.push(column(part));
    }
    let from = end(&["where"]) + 1;
    let upto = end(&["group", "order", "limit", ";"]);
    if from < upto {
        select.filter = filter(&tokens[from..upto]);
    }
    Ok(select)
}

fn tokens(sql: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = sql.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' | '"' | '`' => {
                let inner = &rest[1..];
                let end = inner.find(first).unwrap_or(inner.len());
                let text = inner[..end].to_owned();
                found.push(if first == '\'' {
                    Token::Text(text)
                } else {
                    Token::Word(text)
                });
                (end + 2).min(rest.len())
            }
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            _ if first.is_ascii_digit() => {
                let end = run(rest, |c| c.is_ascii_digit() || c == '.');
                found.push(Token::Number(rest[..end].to_owned()));
                end
            }
            _ if first.is_alphanumeric() || first == '_' => {
                let end = run(rest, |c| c.is_alphanumeric() || c == '_' || c == '.');
                found.push(Token::Word(rest[..end].to_owned()));
                end
            }
            '<' | '>' | '=' | '!' => {
                let end = run(rest, |c| "<>=!".contains(c));
                found.push(Token::Sign(rest[..end].to_owned()));
                end
            }
            _ => {
                found.push(Token::Sign(first.to_string()));
                first.len_utf8()
            }
        };
        rest = rest[length..].trim_start();
    }
    found
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

/// Splits at a sign or word outside parentheses.
fn split<'a>(tokens: &'a [Token], at: &str) -> Vec<&'a [Token]> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0_i32);
    for (index, token) in tokens.iter().enumerate() {
        match token.text() {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ if depth == 0 && token.is(at) => {
                parts.push(&tokens[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[start..]);
    parts
}

fn tables(tokens: &[Token]) -> Vec<String> {
    let defined: Vec<String> = tokens
        .windows(3)
        .filter(|three| three[1].is("as") && three[2].is("("))
        .map(|three| three[0].text().to_ascii_lowercase())
        .collect();
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if !token.is("from") && !token.is("join") {
            continue;
        }
        let clause = tokens[index + 1..].split(|token| {
            let ends = [
                "where", "join", "left", "inner", "cross", "on", "using", "group", "order",
                "limit", "union", ")", ";",
            ];
            ends.iter().any(|word| token.is(word))
        });
        for part in split(clause.into_iter().next().unwrap_or(&[]), ",") {
            if let Some(Token::Word(name)) = part.first() {
                let name = name.to_ascii_lowercase();
                if !defined.contains(&name) && !found.contains(&name) {
                    found.push(name);
                }
            }
        }
    }
    found
}

fn limit(tokens: &[Token]) -> Option<usize> {
    let at = tokens.iter().rposition(|token| token.is("limit"))?;
    tokens.get(at + 1)?.text().parse().ok()
}

fn column(part: &[Token]) -> Column {
    let (body, alias) = match part {
        [body @ .., keyword, Token::Word(alias)] if keyword.is("as") => (body, Some(alias)),
        [body @ .., Token::Word(alias)] if ends_a_value(body) => (body, Some(alias)),
        body => (body, None),
    };
    let written: String = body.iter().map(Token::text).collect();
    let name = alias.cloned().unwrap_or_else(|| written.clone());
    match body {
        [star] if star.is("*") => Column::All,
        [Token::Word(word)] => {
            let source = bare(word);
            let name = alias.map_or_else(|| source.clone(), Clone::clone);
            Column::Named { name, source }
        }
        [Token::Number(value) | Token::Text(value)] => Column::Literal {
            name,
            value: value.clone(),
        },
        [count, ..] if count.is("count") => Column::Count { name },
        _ => Column::Computed {
            name,
            words: words(body),
        },
    }
}

/// Whether a word behind `body` can be an alias: not after an operator.
fn ends_a_value(body: &[Token]) -> bool {
    body.last().is_some_and(|token| match token {
        Token::Sign(sign) => sign == ")",
        Token::Word(_) | Token::Text(_) | Token::Number(_) => true,
    })
}

fn words(tokens: &[Token]) -> Vec<String> {
    let found = tokens.iter().filter_map(|token| match token {
        Token::Word(word) => Some(bare(word)),
        Token::Text(_) | Token::Number(_) | Token::Sign(_) => None,
    });
    found.collect()
}

/// A column's name without the table's before it.
fn bare(word: &str) -> String {
    word.rsplit('.').next().unwrap_or(word).to_ascii_lowercase()
}

fn filter(tokens: &[Token]) -> Vec<Vec<Condition>> {
    let alternatives = split(tokens, "or").into_iter();
    alternatives
        .map(|alternative| {
            split(alternative, "and")
                .into_iter()
                .filter_map(condition)
                .collect()
        })
        .collect()
}

/// A condition of the simple kind; any other counts as one that holds.
fn condition(part: &[Token]) -> Option<Condition> {
    let operator = part
        .iter()
        .enumerate()
        .find_map(|(at, token)| operator(token).map(|op| (at, op)));
    let (at, operator) = operator?;
    let column = words(&part[..at])
        .into_iter()
        .find(|word| word != "cast" && word != "not")?;
    let negated = part[..at].last().is_some_and(|token| token.is("not"));
    let values: Vec<String> = part[at + 1..]
        .iter()
        .filter(|token| !matches!(token, Token::Sign(_)))
        .map(|token| token.text().to_owned())
        .collect();
    Some(Condition {
        column,
        negated,
        operator,
        values,
    })
}

fn operator(token: &Token) -> Option<Operator> {
    match token {
        Token::Sign(sign) => match sign.as_str() {
            "=" | "==" => Some(Operator::Is),
            "!=" | "<>" => Some(Operator::IsNot),
            "<" => Some(Operator::Less),
            "<=" => Some(Operator::LessOrIs),
            ">" => Some(Operator::More),
            ">=" => Some(Operator::MoreOrIs),
            _ => None,
        },
        Token::Word(word) if word.eq_ignore_ascii_case("like") => Some(Operator::Like),
        Token::Word(word) if word.eq_ignore_ascii_case("in") => Some(Operator::In),
        Token::Word(_) | Token::Text(_) | Token::Number(_) => None,
    }
}

impl Condition {
    /// Whether `cell` fulfils the condition.
    pub(super) fn holds(&self, cell: &str) -> bool {
        let first = self.values.first().map_or("", String::as_str);
        let plain = match self.operator {
            Operator::Like => like(&cell.to_lowercase(), &first.to_lowercase()),
            Operator::In => self.values.iter().any(|value| order(cell, value).is_eq()),
            Operator::Is => order(cell, first).is_eq(),
            Operator::IsNot => order(cell, first).is_ne(),
            Operator::Less => order(cell, first).is_lt(),
            Operator::LessOrIs => order(cell, first).is_le(),
            Operator::More => order(cell, first).is_gt(),
            Operator::MoreOrIs => order(cell, first).is_ge(),
        };
        plain != self.negated
    }
}

/// How a cell compares with a value; as numbers where both are.
fn order(cell: &str, wanted: &str) -> std::cmp::Ordering {
    let wanted = match wanted {
        "true" | "TRUE" => "1",
        "false" | "FALSE" => "0",
        other => other,
    };
    match (cell.parse::<f64>(), wanted.parse::<f64>()) {
        (Ok(left), Ok(right)) => left.total_cmp(&right),
        _ => cell.cmp(wanted),
    }
}

/// SQL's LIKE with `%` only: the pieces between the signs must occur in this order.
fn like(text: &str, pattern: &str) -> bool {
    let pieces: Vec<&str> = pattern.split('%').collect();
    let [first, middle @ .., last] = pieces.as_slice() else {
        return text == pattern;
    };
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    for piece in middle {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}
