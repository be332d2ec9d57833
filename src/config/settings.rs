//! Every setting, in one table: its key, what it means, how it is written, its type and its default.
//!
//! From the table come [`Options`] (what somebody wrote, all optional), [`Config`] (what the program
//! needs, complete), the environment variables and their help.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    config::{
        origins::Origins,
        units::{ByteSize, LogFormat, LogPeer, OnFailure, Time, Workers},
    },
    manifest::ModelName,
};

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Section and name, as in `server.listen`.
    pub key: &'static str,
    /// What the setting means.
    pub help: &'static str,
}

impl Setting {
    /// The environment variable that overrides this setting: `LEPTON_SERVER_LISTEN`.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.key.replace('.', "_").to_uppercase())
    }
}

/// What the environment variables of this program begin with.
pub(super) const PREFIX: &str = "LEPTON_";

/// A value that can stand in an environment variable.
trait Text: Sized {
    fn read(text: &str) -> Result<Self, String>;
    fn show(&self) -> String;
}

macro_rules! text {
    ($($type:ty: $expected:expr;)*) => {$(
        impl Text for $type {
            fn read(text: &str) -> Result<Self, String> {
                text.trim().parse().map_err(|_| format!("expected {}", $expected))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

text! {
    SocketAddr: "an address and a port such as 127.0.0.1:8080 or [::1]:8080";
    usize: "a whole number";
    u32: "a whole number";
    u64: "a whole number";
    String: "a text";
    ByteSize: "a size such as 16MiB, 64KiB or a number of bytes";
    Time: "a time such as 10s, 250ms, 5m or 1h";
    Workers: "auto or a number of threads";
    LogFormat: "text or json";
    LogPeer: "address or none";
    OnFailure: "unready, ready or exit";
    Origins: "none, *, or origins such as https://app.example.com separated by commas";
    ModelName: "a model's name: 1 to 64 of a-z, 0-9, '.', '_' and '-', the first a letter or digit";
}

impl Text for PathBuf {
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// Makes the types of the table. A line reads `name: Written => Resolved = default`.
macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])*
        $section:ident: $Section:ident / $Part:ident {
            $($(#[doc = $doc:literal])* $name:ident: $Written:ty => $Resolved:ty = $default:expr;)*
        }
    )*) => {
        /// Every setting, resolved and valid.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Config {
            $($(#[doc = $section_doc])* pub $section: $Section,)*
        }

        /// What somebody wrote: in a file, the environment or on the command line.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Options {
            $($(#[doc = $section_doc])* pub $section: $Part,)*
        }

        $(
            $(#[doc = $section_doc])*
            #[derive(Debug, Clone, PartialEq)]
            pub struct $Section {
                $($(#[doc = $doc])* pub $name: $Resolved,)*
            }

            $(#[doc = $section_doc])*
            #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
            #[serde(deny_unknown_fields, default)]
            pub struct $Part {
                $($(#[doc = $doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $name: Option<$Written>,)*
            }
        )*

        impl Default for Config {
            fn default() -> Self {
                Self { $($section: $Section { $($name: $default,)* },)* }
            }
        }

        /// Every setting, in the order of the table.
        pub const SETTINGS: &[Setting] = &[$($(
            Setting {
                key: concat!(stringify!($section), ".", stringify!($name)),
                help: concat!($($doc),*),
            },
        )*)*];

        impl Options {
            /// Takes from `over` what it says, and the rest from `self`.
            #[must_use]
            pub fn overlaid_by(self, over: Self) -> Self {
                Self {
                    $($section: $Part {
                        $($name: over.$section.$name.or(self.$section.$name),)*
                    },)*
                }
            }

            /// Fills what nobody said with the defaults. Not checked yet.
            pub(super) fn filled(self) -> Config {
                let default = Config::default();
                Config {
                    $($section: $Section {
                        $($name: self.$section.$name.map_or(default.$section.$name, Into::into),)*
                    },)*
                }
            }

            /// Sets the setting called `key` from text; `None` where there is no such setting.
            pub(super) fn set(&mut self, key: &str, text: &str) -> Option<Result<(), String>> {
                match key {
                    $($(
                        concat!(stringify!($section), ".", stringify!($name)) =>
                            Some(Text::read(text).map(|value| self.$section.$name = Some(value))),
                    )*)*
                    _ => None,
                }
            }

            /// What is said for each setting, in the order of [`SETTINGS`].
            pub fn values(&self) -> Vec<(&'static Setting, Option<String>)> {
                let values = [$($(self.$section.$name.as_ref().map(Text::show),)*)*];
                SETTINGS.iter().zip(values).collect()
            }
        }

        impl From<Config> for Options {
            fn from(config: Config) -> Self {
                Self {
                    $($section: $Part { $($name: Some(config.$section.$name.into()),)* },)*
                }
            }
        }
    };
}

settings! {
    /// Where and how the server listens.
    server: ServerConfig / ServerSection {
        /// Address and port; port 0 takes a free one.
        listen: SocketAddr => SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080));
        /// Connections held open at once; further ones are refused, but for probes.
        max_connections: usize => usize = 1024;
        /// Threads that move bytes. They never run a network.
        io_threads: usize => usize = 1;
        /// Longest wait for a request's head.
        header_timeout: Time => Duration = Duration::from_secs(10);
        /// Longest wait for a request's body.
        body_timeout: Time => Duration = Duration::from_secs(30);
        /// Fewest bytes a second at which a body may come, averaged over five seconds; 0 for any.
        body_rate: ByteSize => ByteSize = ByteSize(64 << 10);
        /// How long a stop waits, no longer ready, before it stops accepting.
        grace: Time => Duration = Duration::ZERO;
        /// Longest wait for requests in flight after that.
        drain: Time => Duration = Duration::from_secs(30);
        /// Origins whose browser pages may call the server (CORS); "*" for every page.
        cors: Origins => Origins = Origins::NONE;
    }

    /// How large a request may be.
    limits: LimitsConfig / LimitsSection {
        /// Bytes of a request's body.
        body: ByteSize => ByteSize = ByteSize::mib(16);
        /// Pixels of an image, width times height.
        image_pixels: u64 => u64 = 25_000_000;
        /// Longest side of an image, in pixels.
        image_side: u32 => u32 = 8192;
        /// Bytes that decoding one image may take; each worker decodes one at a time.
        image_memory: ByteSize => ByteSize = ByteSize::mib(256);
        /// Images or texts in one request.
        items: usize => usize = 256;
        /// Bytes of one text.
        text: ByteSize => ByteSize = ByteSize::mib(1);
        /// Arrays and objects inside one another in a JSON body.
        json_depth: usize => usize = 32;
    }

    /// The worker threads and the queue before them.
    pool: PoolConfig / PoolSection {
        /// Worker threads; "auto" takes the cores that this process may really use.
        workers: Workers => Workers = Workers::Auto;
        /// Rows that may wait or run at once.
        queue_rows: usize => usize = 4096;
        /// Bytes of input that may wait or run at once.
        queue_bytes: ByteSize => ByteSize = ByteSize::mib(64);
        /// Deadline of a request that names none.
        deadline: Time => Duration = Duration::from_secs(10);
        /// Longest deadline that a request may name.
        max_deadline: Time => Duration = Duration::from_secs(60);
    }

    /// The models to serve.
    models: ModelsConfig / ModelsSection {
        /// Folder of model folders, relative to the working directory.
        dir: PathBuf => PathBuf = PathBuf::from("models");
        /// The model or pipeline behind /v1/vision/classify.
        vision: ModelName => ModelName = const { ModelName::literal("faces") };
        /// The model behind /v1/text/sentiment.
        sentiment: ModelName => ModelName = const { ModelName::literal("sentiment") };
        /// What a start does with a model that does not load: serve the others and be "unready" or "ready", or "exit".
        on_failure: OnFailure => OnFailure = OnFailure::Unready;
        /// CPU time that loading one model may take; "0s" loads it without trying it in another process first.
        load_timeout: Time => Duration = Duration::from_secs(60);
        /// Bytes that loading one model may take, beside sixteen times those of its files.
        load_memory: ByteSize => ByteSize = ByteSize::mib(1024);
    }

    /// What is logged, and how.
    log: LogConfig / LogSection {
        /// How log lines look: "text" or "json".
        format: LogFormat => LogFormat = LogFormat::Text;
        /// Whether lines about requests have the address that they came from: "address" or "none".
        peer: LogPeer => LogPeer = LogPeer::Address;
        /// What is logged: a level, or levels by module such as "info,lepton=debug".
        filter: String => String = "info".to_owned();
    }
}
