//! How a JSON message is declared, read and written.
//!
//! The macros of this file turn a list of fields with their JSON names into a struct that follows the
//! rules all SDKs can live with:
//!
//! - *read tolerantly*: an unknown field is skipped, a missing one and `null` leave the default, of a
//!   field given twice the last counts (as in Java), a number may come as text and text as a number;
//! - *written strictly*: every field is present, with `{}` and `[]` for empty ones, except an `Option`
//!   without a value, which is left out: `null` is never written.
//!
//! serde's derive is not used because it can neither let `null` mean "the default of this field" nor
//! accept a field twice.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

/// Text of a message: a slice of the received body where it holds no escapes, borrowed when written.
pub type Text<'a> = Cow<'a, str>;

/// A JSON object of texts: instance metadata, labels, headers.
pub type TextMap<'a> = BTreeMap<Text<'a>, Text<'a>>;

/// A message with a type name, as it stands in `metadata.type` of the payload around it.
pub trait Message: Serialize {
    /// Simple name of the message, for example `ConfigQueryRequest`.
    const TYPE: &'static str;

    /// About how many bytes the JSON takes, rounded up: what the encoder allocates.
    fn json_size(&self) -> usize;
}

/// What is common to all answers.
pub trait Response<'a>: Message + Sized {
    /// An answer that reports success, with all fields of its own at their defaults.
    fn ok() -> Self;

    /// An answer that reports a failure (`resultCode` 500), with all fields of its own at their defaults.
    fn failed(error_code: i32, message: impl Into<Text<'a>>) -> Self;

    /// The same answer with the id of the request it belongs to; without one when the request had none.
    #[must_use]
    fn answering(self, request_id: Option<Text<'a>>) -> Self;
}

/// Declares a JSON object: its struct, its default, how it is read and written.
///
/// A line is `name: Type = "jsonName"`, with `or value` for a default that is not the type's own.
macro_rules! object {
    (
        $(#[$meta:meta])*
        $name:ident {
            $($(#[$field_meta:meta])* $field:ident: $kind:ty = $json:literal $(or $default:expr)?,)*
        }
    ) => {
        $crate::nacos::message::object! {
            $(#[$meta])* $name [] {
                $($(#[$field_meta])* $field: $kind = $json $(or $default)?,)*
            }
        }
    };
    (
        $(#[$meta:meta])*
        $name:ident [$($constant:literal: $value:expr),*] {
            $($(#[$field_meta:meta])* $field:ident: $kind:ty = $json:literal $(or $default:expr)?,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name<'a> {
            $($(#[$field_meta])* pub $field: $kind,)*
        }

        impl Default for $name<'_> {
            fn default() -> Self {
                Self { $($field: $crate::nacos::message::default_of!($($default)?),)* }
            }
        }

        impl ::serde::Serialize for $name<'_> {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use ::serde::ser::SerializeMap as _;
                use $crate::nacos::value::Written as _;
                let mut map = serializer.serialize_map(None)?;
                $(map.serialize_entry($constant, $value)?;)*
                $(if !self.$field.is_left_out() {
                    map.serialize_entry($json, &self.$field)?;
                })*
                map.end()
            }
        }

        impl $crate::nacos::value::Written for $name<'_> {
            fn json_size(&self) -> usize {
                // Braces, and for each field its name with quotes, colon and comma.
                2 $(+ $constant.len() + 16)* $(+ $json.len() + 4 + self.$field.json_size())*
            }
        }

        impl<'de: 'a, 'a> $crate::nacos::value::Field<'de> for $name<'a> {
            fn read<D: ::serde::Deserializer<'de>>(&mut self, json: D) -> Result<(), D::Error> {
                struct Fields<'x, 'a>(&'x mut $name<'a>);
                impl<'de: 'a, 'a> ::serde::de::Visitor<'de> for Fields<'_, 'a> {
                    type Value = ();
                    fn expecting(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        f.write_str("an object")
                    }
                    fn visit_unit<E>(self) -> Result<(), E> {
                        Ok(())
                    }
                    fn visit_map<A: ::serde::de::MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
                        use $crate::nacos::value::{Key, Over};
                        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
                            match &*key {
                                $($json => map.next_value_seed(Over(&mut self.0.$field))?,)*
                                _ => drop(map.next_value::<::serde::de::IgnoredAny>()?),
                            }
                        }
                        Ok(())
                    }
                }
                json.deserialize_any(Fields(self))
            }
        }

        impl<'de: 'a, 'a> ::serde::Deserialize<'de> for $name<'a> {
            fn deserialize<D: ::serde::Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
                let mut value = Self::default();
                $crate::nacos::value::Field::read(&mut value, json)?;
                Ok(value)
            }
        }
    };
}

/// The default of a field: the one named, otherwise the type's own.
macro_rules! default_of {
    () => {
        Default::default()
    };
    ($default:expr) => {
        $default
    };
}

/// Declares requests and pushes: an [`object!`] with the common fields of a request and its module.
macro_rules! requests {
    (
        $module:literal;
        $($(#[$meta:meta])* $name:ident { $($fields:tt)* })*
    ) => {$(
        $crate::nacos::message::object! {
            $(#[$meta])*
            $name ["module": $module] {
                /// Chosen by the sender and echoed in the answer; a push must have one to be acknowledged.
                request_id: Option<$crate::nacos::Text<'a>> = "requestId",
                /// Headers some SDKs repeat in the body; those of the payload's metadata win.
                headers: $crate::nacos::TextMap<'a> = "headers",
                $($fields)*
            }
        }
        $crate::nacos::message::named!($name);
    )*};
}

/// Declares answers: an [`object!`] with the common fields of an answer.
macro_rules! responses {
    ($($(#[$meta:meta])* $name:ident { $($fields:tt)* })*) => {$(
        $crate::nacos::message::object! {
            $(#[$meta])*
            $name {
                /// 200 for success, 500 for failure. Zero (a failure) where an answer read had none.
                result_code: i32 = "resultCode",
                /// Zero for success, otherwise the reason.
                error_code: i32 = "errorCode",
                /// `result_code == 200`; Go reads this one.
                success: bool = "success",
                /// Words for people, absent more often than not.
                message: Option<$crate::nacos::Text<'a>> = "message",
                /// The id of the request, when it had one.
                request_id: Option<$crate::nacos::Text<'a>> = "requestId",
                $($fields)*
            }
        }
        $crate::nacos::message::named!($name);
        impl<'a> $crate::nacos::Response<'a> for $name<'a> {
            fn ok() -> Self {
                Self { result_code: $crate::nacos::SUCCESS, success: true, ..Self::default() }
            }
            fn failed(error_code: i32, message: impl Into<$crate::nacos::Text<'a>>) -> Self {
                Self {
                    result_code: $crate::nacos::FAILURE,
                    error_code,
                    message: Some(message.into()),
                    ..Self::default()
                }
            }
            fn answering(mut self, request_id: Option<$crate::nacos::Text<'a>>) -> Self {
                self.request_id = request_id;
                self
            }
        }
    )*};
}

/// Gives a struct its type name: its own.
macro_rules! named {
    ($name:ident) => {
        impl $crate::nacos::Message for $name<'_> {
            const TYPE: &'static str = stringify!($name);
            fn json_size(&self) -> usize {
                $crate::nacos::value::Written::json_size(self)
            }
        }
    };
}

pub(super) use {default_of, named, object, requests, responses};
