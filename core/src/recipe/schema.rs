//! The JSON Schema of a recipe, for editors: printed from the table of keys that the parser itself reads by.

use serde_json::{Map, Value, json};

use super::keys::{Key, Shape, TOP, Text, VERBS, VerbKeys};

/// Returns the schema (JSON Schema, draft 2020-12).
pub fn schema() -> Value {
    let mut schema = Map::new();
    schema.insert(
        "$schema".to_owned(),
        json!("https://json-schema.org/draft/2020-12/schema"),
    );
    schema.insert("title".to_owned(), json!("mk recipe"));
    schema.insert(
        "description".to_owned(),
        json!("What a root filesystem is made of, step by step."),
    );
    schema.extend(object(TOP));
    schema.insert(
        "anyOf".to_owned(),
        json!([{ "required": ["step"] }, { "required": ["from"] }]),
    );
    Value::Object(schema)
}

/// An object that holds `keys` and nothing else.
fn object<'k>(keys: impl IntoIterator<Item = &'k Key>) -> Map<String, Value> {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for key in keys {
        properties.insert(key.name.to_owned(), property(key));
        if key.required {
            required.push(key.name);
        }
    }
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("object"));
    object.insert("properties".to_owned(), Value::Object(properties));
    if !required.is_empty() {
        object.insert("required".to_owned(), json!(required));
    }
    object.insert("additionalProperties".to_owned(), json!(false));
    object
}

fn property(key: &Key) -> Value {
    let mut property = Map::new();
    property.insert("description".to_owned(), json!(key.about));
    property.extend(shape(&key.shape));
    Value::Object(property)
}

fn shape(shape: &Shape) -> Map<String, Value> {
    let value = match shape {
        Shape::Text(text) => string(text),
        Shape::List(text) => json!({ "type": "array", "minItems": 1, "items": string(text) }),
        Shape::OneOrList(text) => json!({
            "anyOf": [
                string(text),
                { "type": "array", "minItems": 1, "uniqueItems": true, "items": string(text) },
            ],
        }),
        Shape::Command(text) => json!({
            "anyOf": [string(text), { "type": "array", "minItems": 1, "items": string(text) }],
        }),
        Shape::Number { most } => json!({ "type": "integer", "minimum": 0, "maximum": most }),
        Shape::Texts(text) => json!({ "type": "object", "additionalProperties": string(text) }),
        Shape::Lists(text) => json!({
            "type": "object",
            "additionalProperties": {
                "anyOf": [
                    string(text),
                    { "type": "array", "minItems": 1, "uniqueItems": true, "items": string(text) },
                ],
            },
        }),
        Shape::Table(keys) => Value::Object(object(*keys)),
        Shape::Tables(keys) => json!({ "type": "array", "minItems": 1, "items": object(*keys) }),
        Shape::Switch => json!({ "type": "boolean" }),
        Shape::TextOrTable(text, keys) => json!({ "anyOf": [string(text), object(*keys)] }),
        Shape::Steps => json!({ "type": "array", "minItems": 1, "items": { "oneOf": steps() } }),
    };
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn steps() -> Vec<Value> {
    let step = |verb: &VerbKeys| {
        let mut step = Map::new();
        step.insert("title".to_owned(), json!(verb.verb.name));
        step.insert("description".to_owned(), json!(verb.verb.about));
        step.extend(object(std::iter::once(&verb.verb).chain(verb.others)));
        Value::Object(step)
    };
    VERBS.iter().map(step).collect()
}

/// A text, which may always hold an argument in braces instead of what its pattern says.
fn string(text: &Text) -> Value {
    match text.pattern {
        Some(pattern) => json!({ "type": "string", "pattern": format!("^(?:{pattern})$|\\{{") }),
        None => json!({ "type": "string" }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::parse::parse;
    use super::*;

    /// Whether the recipe parser has a message of its own for what stands behind `key` in `text`, rather than not
    /// knowing the key or not looking at it.
    fn is_read(text: &str, key: &str) -> bool {
        let Err(mistakes) = parse(text, &BTreeMap::new()) else {
            return false;
        };
        let about = format!("`{key}` cannot be the number 1.5");
        mistakes.0.iter().any(|mistake| mistake.what == about)
    }

    fn names(schema: &Value) -> Vec<&String> {
        schema["properties"].as_object().unwrap().keys().collect()
    }

    #[test]
    fn every_key_of_the_schema_is_read_by_the_parser() {
        let schema = schema();
        for key in names(&schema) {
            assert!(is_read(&format!("{key} = 1.5"), key), "{key}");
        }
        for table in ["conf", "run"] {
            for key in names(&schema["properties"][table]) {
                assert!(
                    is_read(&format!("[{table}]\n{key} = 1.5"), key),
                    "[{table}] {key}"
                );
            }
        }
        let steps = schema["properties"]["step"]["items"]["oneOf"].as_array().unwrap();
        assert_eq!(steps.len(), VERBS.len());
        for step in steps {
            let verb = step["title"].as_str().unwrap();
            for key in names(step) {
                let text = match key == verb {
                    true => format!("[[step]]\n{verb} = 1.5"),
                    false => format!("[[step]]\n{verb} = 'a'\n{key} = 1.5"),
                };
                assert!(is_read(&text, key), "{verb}: {key}");
            }
        }
    }

    #[test]
    fn every_required_key_is_missed_by_the_parser() {
        for verb in VERBS {
            let text = format!("[[step]]\n{} = 'a'", verb.verb.name);
            let told = parse(&text, &BTreeMap::new())
                .map(drop)
                .map_or_else(|mistakes| mistakes.to_string(), |()| String::new());
            for key in verb.others {
                let missed = format!("`{}` needs `{}`", verb.verb.name, key.name);
                assert_eq!(told.contains(&missed), key.required, "{missed}: {told}");
            }
        }
    }

    #[test]
    fn no_object_of_the_schema_takes_what_the_parser_refuses() {
        fn walk(value: &Value) {
            if value["type"] == "object" {
                assert!(!value["additionalProperties"].is_null(), "{value}");
            }
            match value {
                Value::Object(map) => map.values().for_each(walk),
                Value::Array(list) => list.iter().for_each(walk),
                _ => {}
            }
        }
        let schema = schema();
        walk(&schema);
        assert_eq!(
            schema["anyOf"],
            json!([{ "required": ["step"] }, { "required": ["from"] }])
        );
        assert_eq!(schema["additionalProperties"], json!(false));
    }
}
