//! A reader of the part of JSON Schema that the API's document uses.

use serde_json::Value;

/// What is wrong with a document, by its schema; fields that the schema does not name are wrong, too.
pub fn faults(document: &Value, schema: &Value, root: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    check(document, schema, root, "", &mut faults);
    faults
}

fn check(document: &Value, schema: &Value, root: &Value, at: &str, faults: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let target = root.pointer(name.trim_start_matches('#'));
        return check(
            document,
            target.expect("the schema is there"),
            root,
            at,
            faults,
        );
    }
    if let Some(members) = schema["anyOf"].as_array() {
        let fits = members.iter().any(|member| {
            let mut own = Vec::new();
            check(document, member, root, at, &mut own);
            own.is_empty()
        });
        if !fits {
            faults.push(format!("{at}: {document} fits none of {schema}"));
        }
        return;
    }
    if let Some(word) = schema.get("const")
        && word != document
    {
        faults.push(format!("{at}: {document} is not {word}"));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(document)
    {
        faults.push(format!("{at}: {document} is none of {words:?}"));
    }
    let right = match &schema["type"] {
        Value::Null => true,
        Value::Array(types) => types.iter().any(|each| is(document, each)),
        one => is(document, one),
    };
    if !right {
        faults.push(format!("{at}: {document} is no {}", schema["type"]));
        return;
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_u64(), document.as_u64())
        && number < least
    {
        faults.push(format!("{at}: {number} is less than {least}"));
    }
    if schema["format"] == "date-time" && !is_moment(document.as_str().unwrap_or("")) {
        faults.push(format!("{at}: {document} is no moment"));
    }
    if let (Some(items), Some(schema)) = (document.as_array(), schema.get("items")) {
        for (index, item) in items.iter().enumerate() {
            check(item, schema, root, &format!("{at}[{index}]"), faults);
        }
    }
    if let Some(object) = document.as_object()
        && schema.get("type").is_some()
    {
        fields(object, schema, root, at, faults);
    }
}

fn is(document: &Value, kind: &Value) -> bool {
    match kind.as_str() {
        Some("string") => document.is_string(),
        Some("integer") => document.is_u64(),
        Some("number") => document.is_number(),
        Some("boolean") => document.is_boolean(),
        Some("null") => document.is_null(),
        Some("array") => document.is_array(),
        Some("object") => document.is_object(),
        other => panic!("a type that nobody knows: {other:?}"),
    }
}

fn fields(
    object: &serde_json::Map<String, Value>,
    schema: &Value,
    root: &Value,
    at: &str,
    faults: &mut Vec<String>,
) {
    for name in schema["required"].as_array().into_iter().flatten() {
        if !object.contains_key(name.as_str().unwrap()) {
            faults.push(format!("{at}: {name} is missing"));
        }
    }
    for (name, value) in object {
        let at = format!("{at}.{name}");
        match schema["properties"].get(name) {
            Some(schema) => check(value, schema, root, &at, faults),
            None if schema["additionalProperties"] == true => {}
            None if schema["additionalProperties"].is_object() => {
                check(value, &schema["additionalProperties"], root, &at, faults);
            }
            None => faults.push(format!("{at}: not in the document")),
        }
    }
}

fn is_moment(text: &str) -> bool {
    let form = text
        .bytes()
        .map(|byte| if byte.is_ascii_digit() { b'0' } else { byte });
    form.eq(*b"0000-00-00T00:00:00Z")
}
