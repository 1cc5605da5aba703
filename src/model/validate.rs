//! Which names and texts Nacos accepts (contract 00 §3). Lengths are counted in characters, as the Java
//! server counts them (UTF-16 units there, which differ only outside the basic plane).

/// Longest namespace id.
pub const NAMESPACE_ID_MAX: usize = 64;
/// Longest shown name of a namespace.
pub const NAMESPACE_NAME_MAX: usize = 256;
/// Longest data id.
pub const DATA_ID_MAX: usize = 256;
/// Longest group.
pub const GROUP_MAX: usize = 128;
/// Longest tag of a tag variant.
pub const TAG_MAX: usize = 16;
/// Most tags of a config, and the longest of them.
pub const CONFIG_TAGS_MAX: usize = 5;
/// Longest of a config's tags.
pub const CONFIG_TAG_MAX: usize = 64;
/// Longest description of a config.
pub const DESCRIPTION_MAX: usize = 128;
/// Longest `use` of a config.
pub const USE_MAX: usize = 32;
/// Longest `effect` of a config.
pub const EFFECT_MAX: usize = 32;
/// Longest type name.
pub const TYPE_MAX: usize = 32;
/// Longest schema of a config.
pub const SCHEMA_MAX: usize = 32_768;
/// Longest application name.
pub const APP_NAME_MAX: usize = 256;
/// Longest service name, without its group.
pub const SERVICE_NAME_MAX: usize = 512;
/// Longest cluster name.
pub const CLUSTER_NAME_MAX: usize = 64;
/// Longest address or host name.
pub const IP_MAX: usize = 128;
/// Most text in the metadata of an instance or service: names and values together.
pub const METADATA_MAX: usize = 1_024;
/// Longest content: `maxContent` of Nacos.
pub const CONTENT_MAX: usize = 10 << 20;

/// What is wrong with a value, in the words of the Java server. `name` is the parameter in its words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A name longer than it may be.
    #[error("Param '{name}' is illegal, the param length should not exceed {max}.")]
    NameTooLong {
        /// The parameter.
        name: &'static str,
        /// The limit in characters.
        max: usize,
    },
    /// A name with a character that is not allowed.
    #[error("Param '{name}' is illegal, illegal characters should not appear in the param.")]
    IllegalCharacters {
        /// The parameter.
        name: &'static str,
    },
    /// A name that must not be blank, or holds characters that are not allowed here.
    #[error("invalid {name} : {value}")]
    InvalidName {
        /// The parameter.
        name: &'static str,
        /// What was given.
        value: String,
    },
    /// The content is empty or white space.
    #[error("content is blank : {content}")]
    BlankContent {
        /// What was given.
        content: String,
    },
    /// The content is longer than it may be.
    #[error("invalid content, over {max}")]
    ContentTooLong {
        /// The limit in characters.
        max: usize,
    },
    /// A text longer than it may be.
    #[error("too long {name}, over {max}")]
    TextTooLong {
        /// The parameter.
        name: &'static str,
        /// The limit in characters.
        max: usize,
    },
    /// More tags than a config may have.
    #[error("too much config_tags, over {CONFIG_TAGS_MAX}")]
    TooManyTags,
}

/// The check that every call makes on a namespace id that was given; blank ones are the default.
///
/// # Errors
/// What is wrong with it.
pub fn namespace_id(text: &str) -> Result<(), Invalid> {
    let name = "namespaceId/tenant";
    length(name, text, NAMESPACE_ID_MAX)?;
    // Java's `^[\w-]+` must match the whole text; `\w` is ASCII there.
    characters(name, text, |character| {
        character.is_ascii_alphanumeric() || matches!(character, '_' | '-')
    })
}

/// The shown name of a namespace.
///
/// # Errors
/// What is wrong with it.
pub fn namespace_name(text: &str) -> Result<(), Invalid> {
    let name = "namespaceShowName";
    length(name, text, NAMESPACE_NAME_MAX)?;
    characters(name, text, |character| !"@#$%^&*".contains(character))
}

/// The check that every call makes on a data id that was given, blank or not.
///
/// # Errors
/// What is wrong with it.
pub fn data_id(text: &str) -> Result<(), Invalid> {
    length("dataId", text, DATA_ID_MAX)?;
    characters("dataId", text, is_name_character)
}

/// The check that every call makes on a group that was given, blank or not.
///
/// # Errors
/// What is wrong with it.
pub fn group(text: &str) -> Result<(), Invalid> {
    length("group", text, GROUP_MAX)?;
    characters("group", text, is_name_character)
}

/// The check that every call makes on a service name that was given, without its group.
///
/// # Errors
/// What is wrong with it.
pub fn service_name(text: &str) -> Result<(), Invalid> {
    let name = "serviceName";
    length(name, text, SERVICE_NAME_MAX)?;
    if text.starts_with('@') || text.contains("@@") {
        return Err(Invalid::IllegalCharacters { name });
    }
    characters(name, text, is_visible)
}

/// The check that every call makes on cluster names that were given: one, or several separated by commas.
///
/// # Errors
/// What is wrong with the first that is not acceptable.
pub fn clusters(text: &str) -> Result<(), Invalid> {
    text.split(',').try_for_each(|cluster| {
        length("cluster", cluster, CLUSTER_NAME_MAX)?;
        characters("cluster", cluster, |character| {
            character.is_ascii_alphanumeric() || matches!(character, '_' | '-')
        })
    })
}

/// The check that every call makes on an address or host name that was given.
///
/// # Errors
/// What is wrong with it.
pub fn ip(text: &str) -> Result<(), Invalid> {
    length("ip", text, IP_MAX)?;
    characters("ip", text, is_visible)
}

/// What an instance may be registered with: an address or the name of a host. Whoever reads it connects to it, and
/// pages show it: several in one, a part of a URL or of a page are none. More lenient than the standards, for names that
/// people use (`_`, letters of any script).
///
/// # Errors
/// What is wrong with it.
pub fn host(text: &str) -> Result<(), Invalid> {
    let name = "ip";
    if text.contains(':') {
        // IPv6, perhaps in brackets, perhaps with a zone.
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let inner = inner.unwrap_or(text);
        let (address, zone) = inner.split_once('%').unwrap_or((inner, ""));
        return match address.parse::<std::net::Ipv6Addr>() {
            Ok(_) => characters(name, zone, is_of_host),
            Err(_) => Err(Invalid::IllegalCharacters { name }),
        };
    }
    characters(name, text, is_of_host)
}

fn is_of_host(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '.' | '-' | '_')
}

/// The size of metadata: characters of all names and values.
///
/// # Errors
/// It is too much.
pub fn metadata<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<(), Invalid> {
    let sizes = pairs.map(|(name, value)| name.chars().count() + value.chars().count());
    if sizes.sum::<usize>() > METADATA_MAX {
        return Err(Invalid::NameTooLong {
            name: "Metadata",
            max: METADATA_MAX,
        });
    }
    Ok(())
}

/// What reading and publishing demand besides [`data_id`] and [`group`]: neither is blank.
///
/// # Errors
/// Which one is.
pub fn key(data_id: &str, group: &str) -> Result<(), Invalid> {
    for (name, value) in [("dataId", data_id), ("group", group)] {
        if value.trim().is_empty() || !value.chars().all(is_name_character) {
            return Err(Invalid::InvalidName {
                name,
                value: value.into(),
            });
        }
    }
    Ok(())
}

/// The tag of a tag variant; blank is no tag.
///
/// # Errors
/// What is wrong with it.
pub fn tag(text: &str) -> Result<(), Invalid> {
    if text.trim().is_empty() {
        return Ok(());
    }
    if !text.chars().all(is_name_character) {
        return Err(Invalid::InvalidName {
            name: "tag",
            value: text.into(),
        });
    }
    text_length("tag", text, TAG_MAX)
}

/// A content that is to be published.
///
/// # Errors
/// What is wrong with it.
pub fn content(text: &str) -> Result<(), Invalid> {
    if text.trim().is_empty() {
        return Err(Invalid::BlankContent { content: text.into() });
    }
    // A text has at least as many bytes as characters: the common case counts nothing.
    if text.len() > CONTENT_MAX && text.chars().count() > CONTENT_MAX {
        return Err(Invalid::ContentTooLong { max: CONTENT_MAX });
    }
    Ok(())
}

/// The attributes of a config, as they were given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    /// Comma list.
    pub config_tags: &'a str,
    /// `desc`
    pub description: &'a str,
    /// `use`
    pub purpose: &'a str,
    /// `effect`
    pub effect: &'a str,
    /// `type`
    pub kind: &'a str,
    /// `schema`
    pub schema: &'a str,
    /// `appName`
    pub app_name: &'a str,
}

/// The attributes of a config that is to be published.
///
/// # Errors
/// The first one that is not acceptable.
pub fn attributes(given: &Attributes<'_>) -> Result<(), Invalid> {
    if !given.config_tags.is_empty() {
        let mut count = 0;
        for tag in given.config_tags.split(',') {
            count += 1;
            if count > CONFIG_TAGS_MAX {
                return Err(Invalid::TooManyTags);
            }
            text_length("tag", tag, CONFIG_TAG_MAX)?;
        }
    }
    text_length("desc", given.description, DESCRIPTION_MAX)?;
    text_length("use", given.purpose, USE_MAX)?;
    text_length("effect", given.effect, EFFECT_MAX)?;
    text_length("type", given.kind, TYPE_MAX)?;
    text_length("schema", given.schema, SCHEMA_MAX)?;
    text_length("appName", given.app_name, APP_NAME_MAX)
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.' | ':')
}

/// Neither white space nor control character nor one of the basic Chinese characters, which Nacos refuses in
/// names.
fn is_visible(character: char) -> bool {
    !character.is_whitespace() && !character.is_control() && !('\u{4e00}'..='\u{9fa5}').contains(&character)
}

fn length(name: &'static str, text: &str, max: usize) -> Result<(), Invalid> {
    if is_longer(text, max) {
        Err(Invalid::NameTooLong { name, max })
    } else {
        Ok(())
    }
}

fn text_length(name: &'static str, text: &str, max: usize) -> Result<(), Invalid> {
    if is_longer(text, max) {
        Err(Invalid::TextTooLong { name, max })
    } else {
        Ok(())
    }
}

fn is_longer(text: &str, max: usize) -> bool {
    text.len() > max && text.chars().count() > max
}

fn characters(name: &'static str, text: &str, allowed: impl Fn(char) -> bool) -> Result<(), Invalid> {
    if text.chars().all(allowed) {
        Ok(())
    } else {
        Err(Invalid::IllegalCharacters { name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts as recorded from Nacos 2.5.1.
    #[test]
    fn messages_are_those_of_the_java_server() {
        let cases = [
            (
                data_id("a b"),
                "Param 'dataId' is illegal, illegal characters should not appear in the param.",
            ),
            (
                data_id(&"d".repeat(257)),
                "Param 'dataId' is illegal, the param length should not exceed 256.",
            ),
            (
                group("g$g"),
                "Param 'group' is illegal, illegal characters should not appear in the param.",
            ),
            (
                namespace_id("t@t"),
                "Param 'namespaceId/tenant' is illegal, illegal characters should not appear in the param.",
            ),
            (
                namespace_id(&"t".repeat(65)),
                "Param 'namespaceId/tenant' is illegal, the param length should not exceed 64.",
            ),
            (tag(&"t".repeat(17)), "too long tag, over 16"),
            (key("", "g"), "invalid dataId : "),
            (content("  "), "content is blank :   "),
            (
                attributes(&Attributes {
                    description: &"d".repeat(129),
                    ..Attributes::default()
                }),
                "too long desc, over 128",
            ),
            (
                attributes(&Attributes {
                    config_tags: "a,b,c,d,e,f",
                    ..Attributes::default()
                }),
                "too much config_tags, over 5",
            ),
            (
                attributes(&Attributes {
                    config_tags: &"t".repeat(65),
                    ..Attributes::default()
                }),
                "too long tag, over 64",
            ),
        ];
        for (result, text) in cases {
            assert_eq!(
                result.map_err(|invalid| invalid.to_string()),
                Err(text.to_owned())
            );
        }
    }

    #[test]
    fn names_of_naming() {
        let illegal = |name| Err(Invalid::IllegalCharacters { name });
        assert_eq!(
            service_name("com.acme.Api:1.0:$x/名".trim_end_matches('名')),
            Ok(())
        );
        for wrong in ["@x", "a@@b", "a b", "a\tb", "服务", "a\0"] {
            assert_eq!(service_name(wrong), illegal("serviceName"), "{wrong:?}");
        }
        assert_eq!(service_name(&"s".repeat(512)), Ok(()));
        assert!(service_name(&"s".repeat(513)).is_err());
        assert_eq!(clusters("a,b_1,c-2"), Ok(()));
        assert_eq!(clusters(""), Ok(()));
        assert_eq!(clusters("a, b"), illegal("cluster"));
        assert_eq!(ip("fe80::1%eth0"), Ok(()));
        assert_eq!(ip("10.0.0.1 "), illegal("ip"));
        assert_eq!(metadata([("a", &*"é".repeat(1_023))].into_iter()), Ok(()));
        let told = metadata([("a", &*"b".repeat(1_024))].into_iter()).map_err(|wrong| wrong.to_string());
        let text = "Param 'Metadata' is illegal, the param length should not exceed 1024.";
        assert_eq!(told, Err(text.to_owned()));
    }

    /// Nacos #15801.
    #[test]
    fn hosts_are_addresses_or_names() {
        for good in [
            "10.0.0.1",
            "::1",
            "[::1]",
            "fe80::1%eth0",
            "a",
            "my_service.ns.svc",
            "b\u{fc}ro",
            "host-1.",
        ] {
            assert_eq!(host(good), Ok(()), "{good}");
        }
        for bad in [
            "1.1.1.1,2.2.2.2",
            "http://x/",
            "<b>x</b>",
            "1.1.1.1#a",
            "@@",
            "1.1.1.1:80",
            "a:b",
            "x/y",
            "a b",
            "fe80::1%<b>",
        ] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_are_inclusive_and_count_characters() {
        assert_eq!(data_id(&"d".repeat(256)), Ok(()));
        assert_eq!(group("G.b-c_d:e"), Ok(()));
        assert_eq!(namespace_id(""), Ok(()));
        assert_eq!(tag(""), Ok(()));
        assert_eq!(
            data_id("中文"),
            Err(Invalid::IllegalCharacters { name: "dataId" })
        );
        let description = "é".repeat(DESCRIPTION_MAX);
        assert_eq!(
            attributes(&Attributes {
                description: &description,
                ..Attributes::default()
            }),
            Ok(())
        );
        assert_eq!(content(&"x".repeat(CONTENT_MAX)), Ok(()));
        assert!(content(&"x".repeat(CONTENT_MAX + 1)).is_err());
    }
}
