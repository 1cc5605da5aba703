//! The format of a content.

/// What a content says it is: steers editors and the `Config-Type` header, nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ConfigType {
    /// `text`, also for everything unknown.
    #[default]
    Text,
    /// `json`
    Json,
    /// `xml`
    Xml,
    /// `yaml`
    Yaml,
    /// `html`
    Html,
    /// `properties`
    Properties,
    /// `toml`
    Toml,
    /// `unset`
    Unset,
}

impl ConfigType {
    /// All of them.
    pub const ALL: [ConfigType; 8] = [
        ConfigType::Text,
        ConfigType::Json,
        ConfigType::Xml,
        ConfigType::Yaml,
        ConfigType::Html,
        ConfigType::Properties,
        ConfigType::Toml,
        ConfigType::Unset,
    ];

    /// The type of this name; missing or unknown names, those in upper case too, are `text` (as recorded
    /// from Nacos 2.5.1).
    pub fn from_name(name: &str) -> ConfigType {
        ConfigType::ALL
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .unwrap_or_default()
    }

    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ConfigType::Text => "text",
            ConfigType::Json => "json",
            ConfigType::Xml => "xml",
            ConfigType::Yaml => "yaml",
            ConfigType::Html => "html",
            ConfigType::Properties => "properties",
            ConfigType::Toml => "toml",
            ConfigType::Unset => "unset",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_unknown_ones_are_text() {
        for kind in ConfigType::ALL {
            assert_eq!(ConfigType::from_name(kind.as_str()), kind);
        }
        for unknown in ["", "JSON", "yml", "nosuch"] {
            assert_eq!(ConfigType::from_name(unknown), ConfigType::Text);
        }
    }
}
