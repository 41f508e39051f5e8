//! What a request says, checked: its JSON body, field by field, and its query.
//!
//! Field by field, so that all that is wrong is said at once and by name.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::header::CONTENT_TYPE;
use serde_json::{Map, Value};

use super::problem::Refusal;
use super::server::Request;
use crate::users::FieldError;

/// Longest body of a request, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// The fields of a JSON body. What is not taken by the end is unknown.
pub struct Fields {
    fields: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    /// Reads the body of `request`, which has to be a JSON object.
    pub async fn read(request: Request) -> Result<Self, Refusal> {
        if !is_json(&request) {
            return Err(Refusal::unsupported_media_type());
        }
        Self::parse(&body(request).await?)
    }

    /// The same where no body at all means no fields.
    pub async fn read_optional(request: Request) -> Result<Self, Refusal> {
        if request.headers().contains_key(CONTENT_TYPE) {
            return Self::read(request).await;
        }
        if body(request).await?.is_empty() {
            Ok(Self { fields: Map::new(), errors: Vec::new() })
        } else {
            Err(Refusal::unsupported_media_type())
        }
    }

    fn parse(body: &[u8]) -> Result<Self, Refusal> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self { fields, errors: Vec::new() }),
            Ok(_) => Err(Refusal::invalid_field("", "the body is a JSON object")),
            Err(error) => Err(Refusal::malformed(format!("the body is not JSON: {error}"))),
        }
    }

    /// A text that may be missing.
    pub fn text(&mut self, name: &str) -> Option<String> {
        match self.fields.remove(name) {
            Some(Value::String(text)) => Some(text),
            Some(_) => self.wrong(name, "takes a string"),
            None => None,
        }
    }

    /// A text that has to be there; what is given where it is not is never used.
    pub fn required_text(&mut self, name: &str) -> String {
        if !self.fields.contains_key(name) {
            self.errors.push(FieldError::new(name, "is missing"));
        }
        self.text(name).unwrap_or_default()
    }

    /// A JSON object that may be missing.
    pub fn object(&mut self, name: &str) -> Option<Map<String, Value>> {
        match self.fields.remove(name) {
            Some(Value::Object(object)) => Some(object),
            Some(_) => self.wrong(name, "takes a JSON object"),
            None => None,
        }
    }

    /// A word of an enum that may be missing.
    pub fn word<T: serde::de::DeserializeOwned>(&mut self, name: &str, words: &str) -> Option<T> {
        let value = self.fields.remove(name)?;
        serde_json::from_value(value).ok().or_else(|| self.wrong(name, &format!("takes {words}")))
    }

    /// All that is wrong with them, if anything is.
    pub fn end(mut self) -> Result<(), Refusal> {
        let unknown = self.fields.keys().map(|name| FieldError::new(name, "is no field here"));
        self.errors.extend(unknown);
        if self.errors.is_empty() { Ok(()) } else { Err(Refusal::invalid(self.errors)) }
    }

    fn wrong<T>(&mut self, name: &str, detail: &str) -> Option<T> {
        self.errors.push(FieldError::new(name, detail));
        None
    }
}

fn is_json(request: &Request) -> bool {
    let Some(Ok(value)) = request.headers().get(CONTENT_TYPE).map(|value| value.to_str()) else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

async fn body(request: Request) -> Result<Bytes, Refusal> {
    let declared = hyper::body::Body::size_hint(request.body()).lower();
    if declared > BODY_BYTES_MAX as u64 {
        return Err(Refusal::too_large(BODY_BYTES_MAX));
    }
    match Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Refusal::too_large(BODY_BYTES_MAX))
        }
        Err(_) => Err(Refusal::malformed("the body broke off")),
    }
}

/// The parameters behind the `?` of an address. Unknown ones are passed over.
pub struct Query<'a>(Option<&'a str>);

impl<'a> Query<'a> {
    /// Of this request.
    pub fn of<B>(request: &'a hyper::Request<B>) -> Self {
        Self(request.uri().query())
    }

    /// The first value under `name`.
    pub fn text(&self, name: &str) -> Option<String> {
        let pairs = form_urlencoded::parse(self.0.unwrap_or_default().as_bytes());
        pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// The value under `name` if `parse` takes it; `takes` says what would do.
    pub fn parsed<T>(
        &self,
        name: &str,
        takes: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let refusal = || Refusal::invalid_field(name, format!("takes {takes}"));
        parse(&value).map(Some).ok_or_else(refusal)
    }

    /// A whole number in digits alone.
    pub fn number(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, Refusal> {
        let takes = format!("a number from {} to {}", range.start(), range.end());
        self.parsed(name, &takes, |value| {
            let digits = value.bytes().all(|byte| byte.is_ascii_digit());
            value.parse().ok().filter(|number| digits && range.contains(number))
        })
    }
}
