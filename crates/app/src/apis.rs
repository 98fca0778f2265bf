//! The documents that routes' requests must keep to: read before anything changes, kept while their text and
//! what is asked of them stay as they are.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tieline_config as config;
use tieline_openapi::{Api, DOCUMENT_BYTES_MAX, Options};

/// Documents by their files, and what is asked of them.
#[derive(Default)]
pub(crate) struct Apis(HashMap<Key, Loaded>);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    file: PathBuf,
    base: Option<String>,
    unknown_query: bool,
}

struct Loaded {
    text: Arc<str>,
    api: Arc<Api>,
}

impl Apis {
    /// Reads what `live` names; what `before` holds of it already, and whose text is as it was, stays.
    ///
    /// # Errors
    /// Everything that is wrong with the documents, each with its file, line and column.
    pub(crate) fn load(live: &config::Live, before: &Apis) -> Result<Apis, Vec<String>> {
        let (mut apis, mut errors) = (Apis::default(), Vec::new());
        let routes = live.listeners.iter().flat_map(|listener| &listener.routes);
        for key in routes.filter_map(|route| route.api.as_ref()).map(Key::of) {
            if apis.0.contains_key(&key) {
                continue;
            }
            match before.read(&key) {
                Ok(loaded) => drop(apis.0.insert(key, loaded)),
                Err(lines) => {
                    errors.extend(lines.into_iter().filter(|line| !errors.contains(line)).collect::<Vec<_>>())
                }
            }
        }
        if errors.is_empty() { Ok(apis) } else { Err(errors) }
    }

    /// The document of a route.
    pub(crate) fn of(&self, api: &config::Api) -> Option<Arc<Api>> {
        self.0.get(&Key::of(api)).map(|loaded| loaded.api.clone())
    }

    /// Whether it says something else than `other`.
    pub(crate) fn differs(&self, other: &Apis) -> bool {
        let same = |(key, loaded): (&Key, &Loaded)| other.0.get(key).is_some_and(|it| it.text == loaded.text);
        self.0.len() != other.0.len() || !self.0.iter().all(same)
    }

    fn read(&self, key: &Key) -> Result<Loaded, Vec<String>> {
        let file = key.file.display();
        let text = text(&key.file).map_err(|error| vec![format!("{file}: cannot be read: {error}")])?;
        if let Some(known) = self.0.get(key)
            && *known.text == *text
        {
            return Ok(Loaded { text: known.text.clone(), api: known.api.clone() });
        }
        let options = Options { base: key.base.clone(), unknown_query: key.unknown_query };
        match Api::load(&text, &options) {
            Ok(api) => Ok(Loaded { text: text.into(), api: Arc::new(api) }),
            Err(problems) => Err(problems.iter().map(|problem| format!("{file}:{problem}")).collect()),
        }
    }
}

impl Key {
    fn of(api: &config::Api) -> Key {
        Key { file: api.document.clone(), base: api.base.clone(), unknown_query: api.unknown_query }
    }
}

/// One byte more than is taken is read, so that an endless file is found out and never held.
fn text(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}
