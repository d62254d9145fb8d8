//! Who may call the server, how often, and under which names.

use clap::Args;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Settings of `easel serve` that say who may call.
#[derive(Debug, Clone, Args)]
pub struct AccessArgs {
    /// A file of API keys, one a line: KEY, or NAME KEY; read again at SIGHUP [default: no key is needed]
    #[arg(long, env = "EASEL_API_KEYS_FILE", value_name = "FILE")]
    pub api_keys_file: Option<PathBuf>,
    /// API keys, separated by commas; better given by the environment, as anyone on the machine can read command lines
    #[arg(long, env = "EASEL_API_KEYS", value_name = "KEYS", hide_env_values = true)]
    pub api_keys: Option<Secret>,
    /// Requests that each caller may make in a minute [default: any number]
    #[arg(long, env = "EASEL_REQUESTS_PER_MINUTE", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub requests_per_minute: Option<u32>,
    /// Pictures that each caller may have in the server at once [default: any number]
    #[arg(long, env = "EASEL_PICTURES_PER_CALLER", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub pictures_per_caller: Option<u32>,
    /// Names that mean the resident model beside its own, separated by commas (`gpt-image-*`: all that
    /// begin so); none leaves it its own alone
    #[arg(long, env = "EASEL_MODEL_ALIASES", value_name = "NAMES|none", default_value_t)]
    pub model_aliases: ModelAliases,
    /// Origins of web pages that may call, separated by commas, or * for all [default: none]
    #[arg(
        long,
        env = "EASEL_CORS_ORIGINS",
        value_name = "ORIGINS",
        default_value_t,
        hide_default_value = true
    )]
    pub cors_origins: Origins,
}

/// A text that nothing prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Secret")
    }
}

/// OpenAI's image models: clients have these names built in. The last two stand for those to come.
const OPENAI: &str =
    "gpt-image-2,gpt-image-1.5,gpt-image-1,gpt-image-1-mini,dall-e-3,dall-e-2,gpt-image-*,chatgpt-image-*";

/// Names that mean the resident model beside its own. One that ends in `*` stands for all that begin like it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelAliases(pub Vec<String>);

impl Default for ModelAliases {
    fn default() -> Self {
        Self(OPENAI.split(',').map(str::to_owned).collect())
    }
}

impl FromStr for ModelAliases {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(Vec::new()));
        }
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        let plain = |name: &String| {
            (1..=128).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
        };
        match names.iter().find(|name| !plain(name)) {
            Some(name) => {
                Err(format!("must be none or names of 1 to 128 signs without spaces; got '{name}'"))
            }
            None => Ok(Self(names)),
        }
    }
}

impl fmt::Display for ModelAliases {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(if self.0.is_empty() { "none" } else { "" })?;
        to.write_str(&self.0.join(","))
    }
}

/// Origins of web pages, as browsers write them: `https://example.org`, `http://localhost:3000`; `*` is any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origins(Vec<String>);

impl Origins {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether pages of `origin` may call.
    pub fn allow(&self, origin: &str) -> bool {
        self.0.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    }
}

impl FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let origins: Vec<String> = text.split(',').map(|origin| origin.trim().to_owned()).collect();
        if text.is_empty() {
            return Ok(Self::default());
        }
        let whole = |origin: &String| {
            let page = origin.split_once("://").map_or("", |(_, page)| page);
            origin == "*" || !page.is_empty() && !page.contains(['/', ' ', '?', '#', '*'])
        };
        match origins.iter().find(|origin| !whole(origin)) {
            Some(origin) => Err(format!(
                "must be * or origins such as https://example.org, without a path; got '{origin}'"
            )),
            None => Ok(Self(origins)),
        }
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.0.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_openais_names_unless_others_or_none_are_given() {
        let aliases = |text: &str| text.parse::<ModelAliases>();
        assert!(ModelAliases::default().0.iter().any(|name| name == "gpt-image-1"));
        assert_eq!(aliases(&ModelAliases::default().to_string()), Ok(ModelAliases::default()));
        assert_eq!(aliases("none"), Ok(ModelAliases(Vec::new())));
        assert_eq!(aliases("sdxl, my/model:1").unwrap().0, ["sdxl", "my/model:1"]);
        for wrong in ["", "a,,b", "a b", "a,\n"] {
            assert!(aliases(wrong).unwrap_err().contains("1 to 128"), "{wrong}");
        }
    }

    #[test]
    fn origins_are_whole_and_nothing_more() {
        let origins = |text: &str| text.parse::<Origins>();
        let two = origins("https://example.org, http://localhost:3000").unwrap();
        assert!(two.allow("https://example.org") && two.allow("http://LOCALHOST:3000"));
        for other in
            ["https://example.org.evil", "http://example.org", "https://example.org:8443", "null", ""]
        {
            assert!(!two.allow(other), "{other}");
        }
        assert!(origins("*").unwrap().allow("null"));
        assert!(origins("").unwrap().is_empty() && !origins("").unwrap().allow("null"));
        for wrong in ["example.org", "https://example.org/", "https://*.example.org", "https://", "a,"] {
            assert!(origins(wrong).unwrap_err().contains("without a path"), "{wrong}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret("sk-1".into())), "Secret");
    }
}
