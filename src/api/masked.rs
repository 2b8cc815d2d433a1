//! Secrets within documents that are kept for clients: given out as asterisks, and kept when the asterisks come back.

use serde_json::Value;

/// What stands for a secret, as in Fleet.
const MASK: &str = "********";
/// Words of a member's name that say that its value is a secret.
const WORDS: [&str; 12] = [
    "secret",
    "secrets",
    "password",
    "passwords",
    "passwd",
    "passphrase",
    "token",
    "tokens",
    "key",
    "keys",
    "credential",
    "credentials",
];

/// Puts asterisks in the place of each text whose member's name says that it is a secret, and of the texts of a list of
/// such a name if `lists`.
pub(super) fn mask(document: &mut Value, lists: bool) {
    let Value::Object(members) = document else {
        if let Value::Array(elements) = document {
            elements.iter_mut().for_each(|each| mask(each, lists));
        }
        return;
    };
    for (name, value) in members {
        match value {
            Value::String(text) if is_secret(name) && !text.is_empty() => *text = MASK.to_owned(),
            Value::Number(_) if is_secret(name) => *value = MASK.into(),
            Value::Array(elements) if lists && is_secret(name) => {
                for element in elements {
                    if element.is_string() {
                        *element = MASK.into();
                    } else {
                        mask(element, lists);
                    }
                }
            }
            other => mask(other, lists),
        }
    }
}

/// Puts back what [`mask`] has hidden: asterisks where `known` has something of the same name and place.
pub(super) fn unmask(document: &mut Value, known: &Value) {
    match (document, known) {
        (Value::Object(members), Value::Object(known)) => {
            for (name, value) in members {
                if let Some(known) = known.get(name) {
                    restore(value, known);
                }
            }
        }
        (Value::Array(elements), Value::Array(known)) => {
            for (value, known) in elements.iter_mut().zip(known) {
                restore(value, known);
            }
        }
        _ => {}
    }
}

fn restore(value: &mut Value, known: &Value) {
    if value == MASK && (known.is_string() || known.is_number()) {
        value.clone_from(known);
    } else {
        unmask(value, known);
    }
}

/// Whether a word of the name, in whatever case it is written, is one of [`WORDS`].
fn is_secret(name: &str) -> bool {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for char in name.chars() {
        let begins = !char.is_alphanumeric() || (char.is_uppercase() && was_lower);
        was_lower = char.is_lowercase() || char.is_numeric();
        if begins {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| char.is_alphanumeric()) {
            word.extend(char.to_lowercase());
        }
    }
    words.iter().any(|word| WORDS.contains(&word.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_hidden_by_their_names_and_come_back() {
        let document = json!({
            "smtp_settings": {"user_name": "u", "password": "p", "authKey": 7, "server": "s", "PASSWORD": ""},
            "integrations": [{"url": "u", "api_token": "t"}, {"privateKeys": ["a", {"key": "b"}]}],
            "monkey": "m", "keyboard": "k", "expiry": 3, "clientSecret": "x",
        });
        let mut shown = document.clone();
        mask(&mut shown, true);
        let expected = json!({
            "smtp_settings": {"user_name": "u", "password": MASK, "authKey": MASK, "server": "s", "PASSWORD": ""},
            "integrations": [{"url": "u", "api_token": MASK}, {"privateKeys": [MASK, {"key": MASK}]}],
            "monkey": "m", "keyboard": "k", "expiry": 3, "clientSecret": MASK,
        });
        assert_eq!(shown, expected);
        shown["smtp_settings"]["server"] = json!("other");
        shown["clientSecret"] = json!("new");
        unmask(&mut shown, &document);
        let mut changed = document;
        changed["smtp_settings"]["server"] = json!("other");
        changed["clientSecret"] = json!("new");
        assert_eq!(shown, changed);
    }

    #[test]
    fn lists_of_agents_options_are_no_secrets() {
        let mut options = json!({"file_paths": {"ssh_keys": ["/root/.ssh/%"]}, "options": {"aws_secret_access_key": "x"}});
        mask(&mut options, false);
        assert_eq!(options["file_paths"]["ssh_keys"][0], "/root/.ssh/%");
        assert_eq!(options["options"]["aws_secret_access_key"], MASK);
    }
}
