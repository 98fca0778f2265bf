//! Which server is meant.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use tieline_base::Secret;
use tieline_control::SOCKET_NAME;

use super::client::Client;

/// Which server is meant: by its config file, its data folder, or its address and token.
#[derive(Args, Debug)]
pub(crate) struct Target {
    /// The server's config file, which names its data folder
    #[arg(short, long, value_name = "FILE", default_value = "tieline.toml")]
    config: PathBuf,
    /// The server's data folder, with its admin socket
    #[arg(long, value_name = "FOLDER", conflicts_with = "admin")]
    data: Option<PathBuf>,
    /// The server's admin API over the network, like http://127.0.0.1:7070
    #[arg(long, value_name = "URL", requires = "token_file")]
    admin: Option<String>,
    /// The file that holds its admin token
    #[arg(long, value_name = "FILE", requires = "admin")]
    token_file: Option<PathBuf>,
}

impl Target {
    /// A client of that server; nothing is connected yet.
    ///
    /// # Errors
    /// When the URL or the token's file cannot be read.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        if let (Some(url), Some(token_file)) = (&self.admin, &self.token_file) {
            let token = fs::read_to_string(token_file);
            let token = token.with_context(|| format!("the token file {}", token_file.display()))?;
            return Client::network(url, Secret::new(token.trim().into()));
        }
        let data = self.data.clone().unwrap_or_else(|| data_folder(&self.config));
        Ok(Client::socket(data.join(SOCKET_NAME)))
    }
}

/// The data folder that the config file names. The file may be wrong in every other way, or missing: a server
/// that runs must be reached even while somebody is at work on its config.
fn data_folder(config: &Path) -> PathBuf {
    let folder = config.parent().unwrap_or(Path::new(""));
    let text = fs::read_to_string(config).unwrap_or_default();
    folder.join(named_in(&text).unwrap_or_else(|| DEFAULT.into()))
}

/// As `server.data` has it; see `tieline explain server.data`.
const DEFAULT: &str = "tieline-data";

/// The `data` of `[server]` in `text`.
fn named_in(text: &str) -> Option<String> {
    let table: toml::Table = text.parse().ok()?;
    Some(table.get("server")?.get("data")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_folder_is_found_whatever_else_is_wrong_with_the_config() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("tieline.toml");
        assert_eq!(data_folder(&config), folder.path().join("tieline-data"));
        for (text, data) in [
            ("", "tieline-data"),
            ("[server]\ndata = \"d\"\n[listener.x]\nnonsense = 1\n", "d"),
            ("[server]\ndata = 7", "tieline-data"),
            ("[server", "tieline-data"),
        ] {
            fs::write(&config, text).unwrap();
            assert_eq!(data_folder(&config), folder.path().join(data), "{text}");
        }
        fs::write(&config, "[server]\ndata = \"/srv/tieline\"").unwrap();
        assert_eq!(data_folder(&config), Path::new("/srv/tieline"));
    }
}
