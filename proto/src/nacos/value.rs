//! The kinds of values that stand in messages, each read with good will and written strictly.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::Text;

/// Elements a list may hold. The largest lists in use are the keys of one batch listen (3,000 from Java,
/// all keys of the process from others). Longer ones are refused, so that ten megabytes of `{},{},` cannot
/// turn into gigabytes of structs.
pub const LIST_ITEMS_MAX: usize = 100_000;

/// Entries a map (metadata, labels, headers in a body) may hold; more are refused for the same reason.
pub const MAP_ENTRIES_MAX: usize = 10_000;

/// A value that stands in a message: how it is read over its default.
pub(super) trait Field<'de> {
    /// Replaces the value by what stands in the JSON; `null` leaves it as it is.
    fn read<D: Deserializer<'de>>(&mut self, json: D) -> Result<(), D::Error>;
}

/// A value that stands in a message: when it is left out and how large it may get.
pub(super) trait Written {
    /// True for a value that is left out instead of writing `null`.
    fn is_left_out(&self) -> bool {
        false
    }

    /// About how many bytes of JSON.
    fn json_size(&self) -> usize;
}

/// Reads a [`Field`] over the value that is there.
pub(super) struct Over<'x, T>(pub(super) &'x mut T);

impl<'de, T: Field<'de>> DeserializeSeed<'de> for Over<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        self.0.read(json)
    }
}

/// A field's name: borrowed unless it holds escapes.
pub(super) struct Key<'de>(pub(super) Cow<'de, str>);

impl<'de> de::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(name)))
            }
            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(name.to_owned())))
            }
        }
        json.deserialize_str(Name)
    }
}

/// Text, also from a number or a truth value.
struct TextReader<'x, 'a>(&'x mut Text<'a>);

impl<'de: 'a, 'a> Visitor<'de> for TextReader<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        *self.0 = Cow::Borrowed(text);
        Ok(())
    }
    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        *self.0 = Cow::Owned(text.to_owned());
        Ok(())
    }
    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        *self.0 = Cow::Borrowed(if value { "true" } else { "false" });
        Ok(())
    }
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        *self.0 = Cow::Owned(value.to_string());
        Ok(())
    }
    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        *self.0 = Cow::Owned(value.to_string());
        Ok(())
    }
    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        *self.0 = Cow::Owned(value.to_string());
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

impl<'de: 'a, 'a> Field<'de> for Text<'a> {
    fn read<D: Deserializer<'de>>(&mut self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(TextReader(self))
    }
}

impl Written for Text<'_> {
    fn json_size(&self) -> usize {
        // Line breaks and quotes of ordinary text double; an eighth is more than they make. Two quotes.
        2 + self.len() + self.len() / 8
    }
}

impl<'de, T: Field<'de> + Default> Field<'de> for Option<T> {
    fn read<D: Deserializer<'de>>(&mut self, json: D) -> Result<(), D::Error> {
        struct Maybe<'x, T>(&'x mut Option<T>);
        impl<'de, T: Field<'de> + Default> Visitor<'de> for Maybe<'_, T> {
            type Value = ();
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or null")
            }
            fn visit_none<E>(self) -> Result<(), E> {
                Ok(())
            }
            fn visit_unit<E>(self) -> Result<(), E> {
                Ok(())
            }
            fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
                self.0.insert(T::default()).read(json)
            }
        }
        json.deserialize_option(Maybe(self))
    }
}

impl<T: Written> Written for Option<T> {
    fn is_left_out(&self) -> bool {
        self.is_none()
    }
    fn json_size(&self) -> usize {
        self.as_ref().map_or(0, Written::json_size)
    }
}

/// A whole number, also from text and from a number with a decimal point.
struct IntReader<'x, T>(&'x mut T);

impl<T: TryFrom<i64>> Visitor<'_> for IntReader<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number in range")
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        *self.0 =
            T::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &"in range"))?;
        Ok(())
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        let signed = i64::try_from(value)
            .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &"in range"))?;
        self.visit_i64(signed)
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        // 2^53: beyond it a float no longer names one whole number.
        if value.abs() > 9_007_199_254_740_992.0 || value.is_nan() {
            return Err(E::invalid_value(de::Unexpected::Float(value), &"in range"));
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "checked above; Java cuts the fraction, too"
        )]
        self.visit_i64(value as i64)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        match text.trim() {
            "" => Ok(()),
            digits => match digits.parse() {
                Ok(value) => self.visit_i64(value),
                Err(_) => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
            },
        }
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A number, also from text. Never infinite and never "not a number": JSON cannot say them.
struct FloatReader<'x>(&'x mut f64);

impl Visitor<'_> for FloatReader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }
    #[expect(clippy::cast_precision_loss, reason = "weights and rates are small")]
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        *self.0 = value as f64;
        Ok(())
    }
    #[expect(clippy::cast_precision_loss, reason = "weights and rates are small")]
    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        *self.0 = value as f64;
        Ok(())
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        if !value.is_finite() {
            return Err(E::invalid_value(de::Unexpected::Float(value), &self));
        }
        *self.0 = value;
        Ok(())
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        match text.trim() {
            "" => Ok(()),
            digits => match digits.parse() {
                Ok(value) => self.visit_f64(value),
                Err(_) => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
            },
        }
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A truth value, also from text and from 0 and 1.
struct FlagReader<'x>(&'x mut bool);

impl Visitor<'_> for FlagReader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }
    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        *self.0 = value;
        Ok(())
    }
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        *self.0 = value != 0;
        Ok(())
    }
    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        *self.0 = value != 0;
        Ok(())
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        let word = text.trim();
        if word.eq_ignore_ascii_case("true") || word == "1" {
            *self.0 = true;
        } else if word.eq_ignore_ascii_case("false") || word == "0" {
            *self.0 = false;
        } else if !word.is_empty() {
            return Err(E::invalid_value(de::Unexpected::Str(text), &self));
        }
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

macro_rules! scalars {
    ($($kind:ty: $reader:ident, $size:literal;)*) => {$(
        impl<'de> Field<'de> for $kind {
            fn read<D: Deserializer<'de>>(&mut self, json: D) -> Result<(), D::Error> {
                json.deserialize_any($reader(self))
            }
        }
        impl Written for $kind {
            fn json_size(&self) -> usize {
                $size
            }
        }
    )*};
}

scalars! {
    i32: IntReader, 11;
    i64: IntReader, 20;
    f64: FloatReader, 24;
    bool: FlagReader, 5;
}

/// Any JSON, kept as it is.
impl<'de> Field<'de> for serde_json::Value {
    fn read<D: Deserializer<'de>>(&mut self, json: D) -> Result<(), D::Error> {
        *self = de::Deserialize::deserialize(json)?;
        Ok(())
    }
}

impl Written for serde_json::Value {
    fn json_size(&self) -> usize {
        // A guess: clients send these, servers only read them.
        64
    }
}

impl<'de, T: Field<'de> + Default> Field<'de> for Vec<T> {
    fn read<D: Deserializer<'de>>(&mut self, json: D) -> Result<(), D::Error> {
        struct Items<'x, T>(&'x mut Vec<T>);
        impl<'de, T: Field<'de> + Default> Visitor<'de> for Items<'_, T> {
            type Value = ();
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_unit<E>(self) -> Result<(), E> {
                Ok(())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
                self.0.clear();
                while let Some(item) = list.next_element_seed(New(PhantomData))? {
                    if self.0.len() == LIST_ITEMS_MAX {
                        return Err(de::Error::invalid_length(
                            self.0.len(),
                            &"at most 100000 elements",
                        ));
                    }
                    self.0.push(item);
                }
                Ok(())
            }
        }
        json.deserialize_any(Items(self))
    }
}

impl<T: Written> Written for Vec<T> {
    fn json_size(&self) -> usize {
        2 + self.iter().map(|item| item.json_size() + 3).sum::<usize>()
    }
}

impl<'de: 'a, 'a, T: Field<'de> + Default> Field<'de> for BTreeMap<Text<'a>, T> {
    fn read<D: Deserializer<'de>>(&mut self, json: D) -> Result<(), D::Error> {
        struct Entries<'x, 'a, T>(&'x mut BTreeMap<Text<'a>, T>);
        impl<'de: 'a, 'a, T: Field<'de> + Default> Visitor<'de> for Entries<'_, 'a, T> {
            type Value = ();
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_unit<E>(self) -> Result<(), E> {
                Ok(())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
                self.0.clear();
                while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
                    let value = map.next_value_seed(New(PhantomData))?;
                    self.0.insert(key, value);
                    if self.0.len() > MAP_ENTRIES_MAX {
                        return Err(de::Error::invalid_length(self.0.len(), &"at most 10000 entries"));
                    }
                }
                Ok(())
            }
        }
        json.deserialize_any(Entries(self))
    }
}

impl<T: Written> Written for BTreeMap<Text<'_>, T> {
    fn json_size(&self) -> usize {
        2 + self
            .iter()
            .map(|(key, value)| key.json_size() + value.json_size() + 6)
            .sum::<usize>()
    }
}

/// Reads a new value over its default: an element of a list or a map.
struct New<T>(PhantomData<T>);

impl<'de, T: Field<'de> + Default> DeserializeSeed<'de> for New<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<T, D::Error> {
        let mut value = T::default();
        value.read(json)?;
        Ok(value)
    }
}
