//! Shapes of JSON in a short notation, for the table of routes, and as JSON Schema for the OpenAPI document.
//!
//! `{name: string, hosts?: [int; 1..100]|null, ...}`: fields, `?` for those that may be missing, `...` for objects
//! that may hold more, how many elements a list may have. Words: `string`, `int`, `number`, `bool`, `time`, `null`,
//! `any`, `object`; `1..100` is a whole number of these; `name`, `text`, `secret`, `password` and `email` are
//! strings that are not refused for what they are; a quoted word stands for itself; a word with a capital is one of
//! [`NAMED`].

use serde_json::{Map, Value, json};

use super::named::NAMED;

/// What a name may be: no control characters, and not only space.
const NAME: &str =
    "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$";
/// What an address may be: something before an `@` and something after it, and no space.
const EMAIL: &str = "^[^@\\s\\x00-\\x1f\\x7f-\\x9f]+@[^\\s\\x00-\\x1f\\x7f-\\x9f]+$";
/// Something that is not space.
const TEXT: &str = "\\S";

/// Why a shape makes no sense, and where.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} at byte {1}")]
pub(super) struct Nonsense(&'static str, usize);

/// The JSON Schema of a shape.
///
/// # Errors
/// When it is not in the notation; a test reads all that there are.
pub(super) fn schema(shape: &str) -> Result<Value, Nonsense> {
    let mut reader = Reader { text: shape, at: 0 };
    let schema = reader.union()?;
    reader.space();
    if reader.at < shape.len() {
        return Err(Nonsense("more than a shape", reader.at));
    }
    Ok(schema)
}

/// The schemas of all named shapes.
pub(super) fn components() -> Map<String, Value> {
    let named = NAMED.iter();
    named
        .map(|(name, shape)| {
            (
                (*name).to_owned(),
                schema(shape).unwrap_or_else(|_| json!({})),
            )
        })
        .collect()
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Takes a sign if it comes next.
    fn take(&mut self, sign: &str) -> bool {
        self.space();
        let comes = self.text[self.at..].starts_with(sign);
        if comes {
            self.at += sign.len();
        }
        comes
    }

    fn must(&mut self, sign: &str, what: &'static str) -> Result<(), Nonsense> {
        if self.take(sign) {
            Ok(())
        } else {
            Err(Nonsense(what, self.at))
        }
    }

    fn word(&mut self) -> &'a str {
        self.space();
        let rest = &self.text[self.at..];
        let end = rest.find(|each: char| !each.is_alphanumeric() && each != '_');
        let word = &rest[..end.unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn union(&mut self) -> Result<Value, Nonsense> {
        let mut members = vec![self.one()?];
        while self.take("|") {
            members.push(self.one()?);
        }
        if members.len() == 1 {
            return Ok(members.remove(0));
        }
        let words: Option<Vec<Value>> = members
            .iter()
            .map(|member| member.get("const").cloned())
            .collect();
        Ok(match words {
            Some(words) => json!({"type": "string", "enum": words}),
            None => json!({"anyOf": members}),
        })
    }

    fn one(&mut self) -> Result<Value, Nonsense> {
        if self.take("[") {
            return self.list();
        }
        if self.take("{") {
            return self.fields();
        }
        if self.take("\"") {
            let word = self.word();
            self.must("\"", "a word without its end")?;
            return Ok(json!({"const": word}));
        }
        let start = self.at;
        let word = self.word();
        if let Ok(least) = word.parse::<u64>() {
            let mut range = json!({"type": "integer"});
            self.range(least, &mut range, ["minimum", "maximum"])?;
            return Ok(range);
        }
        Ok(match word {
            "string" => json!({"type": "string"}),
            "int" => json!({"type": "integer", "minimum": 0}),
            "number" => json!({"type": "number"}),
            "name" => json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": NAME}),
            "email" => json!({"type": "string", "maxLength": 255, "pattern": EMAIL}),
            "text" => json!({"type": "string", "pattern": TEXT}),
            "secret" => json!({"type": "string", "maxLength": 255, "pattern": TEXT}),
            "password" => json!({"type": "string", "minLength": 12, "maxLength": 256}),
            "bool" => json!({"type": "boolean"}),
            "time" => json!({"type": "string", "format": "date-time"}),
            "null" => json!({"type": "null"}),
            "object" => json!({"type": "object", "additionalProperties": true}),
            "any" => json!({}),
            name if NAMED.iter().any(|(known, _)| *known == name) => {
                json!({"$ref": format!("#/components/schemas/{name}")})
            }
            _ => return Err(Nonsense("an unknown word", start)),
        })
    }

    fn list(&mut self) -> Result<Value, Nonsense> {
        let items = self.union()?;
        let mut list = json!({"type": "array", "items": items});
        if self.take(";") {
            let start = self.at;
            let least = self.word().parse();
            let least = least.map_err(|_| Nonsense("a list without its least length", start))?;
            self.range(least, &mut list, ["minItems", "maxItems"])?;
        }
        self.must("]", "a list without its end")?;
        Ok(list)
    }

    /// The rest of `least..most`; without a most, there is none.
    fn range(
        &mut self,
        least: u64,
        schema: &mut Value,
        [min, max]: [&str; 2],
    ) -> Result<(), Nonsense> {
        self.must("..", "a range without its dots")?;
        schema[min] = least.into();
        let start = self.at;
        match self.word() {
            "" => {}
            most => match most.parse::<u64>() {
                Ok(most) => schema[max] = most.into(),
                Err(_) => return Err(Nonsense("a range that ends in no number", start)),
            },
        }
        Ok(())
    }

    fn fields(&mut self) -> Result<Value, Nonsense> {
        let (mut properties, mut required) = (Map::new(), Vec::new());
        let mut open = false;
        while !self.take("}") {
            if self.take("...") {
                open = true;
            } else {
                let name = self.word().to_owned();
                if name.is_empty() {
                    return Err(Nonsense("a field without a name", self.at));
                }
                if !self.take("?") {
                    required.push(Value::String(name.clone()));
                }
                self.must(":", "a field without a shape")?;
                properties.insert(name, self.union()?);
            }
            if !self.take(",") {
                self.must("}", "an object without its end")?;
                break;
            }
        }
        let mut schema = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            schema["required"] = Value::Array(required);
        }
        if open {
            schema["additionalProperties"] = Value::Bool(true);
        }
        Ok(schema)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_become_schemas() {
        let read =
            schema(r#"{a: [int; 1..9]|null, b?: "x"|"y", c: {...}, d: Error, e?: 1..|2..5}"#)
                .unwrap();
        assert_eq!(
            read["properties"]["a"]["anyOf"][0],
            json!({"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 9})
        );
        assert_eq!(
            read["properties"]["e"]["anyOf"],
            json!([{"type": "integer", "minimum": 1}, {"type": "integer", "minimum": 2, "maximum": 5}])
        );
        assert_eq!(read["required"], json!(["a", "c", "d"]));
        assert_eq!(read["properties"]["a"]["anyOf"][1], json!({"type": "null"}));
        assert_eq!(read["properties"]["b"]["enum"], json!(["x", "y"]));
        assert_eq!(read["properties"]["c"]["additionalProperties"], json!(true));
        assert_eq!(
            read["properties"]["d"]["$ref"],
            "#/components/schemas/Error"
        );
        for bad in [
            "[int; x]", "1", "1..x", "[int; 1]", "", "{", "{a}", "[int", "strin", "int int",
            "{a: int", "\"x",
        ] {
            assert!(schema(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_shape_of_the_table_can_be_read() {
        for (name, shape) in NAMED {
            assert_eq!(schema(shape).err(), None, "{name}");
        }
        for route in super::super::table().into_iter().flatten() {
            for shape in [route.takes, route.gives] {
                if !shape.is_empty() {
                    let at = format!("{} {}: {shape}", route.method, route.path);
                    assert_eq!(schema(shape).err(), None, "{at}");
                }
            }
            assert!(
                route.summary.ends_with('.'),
                "{} {}",
                route.method,
                route.path
            );
        }
    }
}
