//! Commands that read other applications' data beside the counters: hashes and strings.

use fred::types::Value;

use super::RedisTransport;
use super::resets::command;
use crate::model::CounterKey;
use crate::store::StoreError;
use crate::store::remote::transport::Transport;

/// Fields of one reply: some 0.2 ms, during which Redis serves no other client.
const AT_ONCE: i64 = 500;
/// The error text for a malformed reply.
const SHAPE: &str = "a reply of another shape than HSCAN's";

/// Some fields of a hash.
#[derive(Debug, Default)]
pub struct HashPage {
    /// Names and values; a field may be in two pages.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// The position of the next page; `None` = this is the last page.
    pub next: Option<u64>,
}

impl RedisTransport {
    /// The fields of a hash from a position on; the first position is 0.
    ///
    /// # Errors
    /// When Redis does not answer, or has something else at this key.
    pub async fn hash_page(&self, key: &CounterKey, from: u64) -> Result<HashPage, StoreError> {
        let client = self.client(self.shard(key))?;
        let arguments: Vec<Value> = vec![
            key.as_str().into(),
            from.to_string().into(),
            "COUNT".into(),
            AT_ONCE.into(),
        ];
        let reply = command(&client, "HSCAN", arguments).await?;
        page(reply).ok_or_else(|| StoreError::Protocol(SHAPE.to_owned()))
    }

    /// The string at a key, if there is one.
    ///
    /// # Errors
    /// When Redis does not answer, or has something else at this key.
    pub async fn text(&self, key: &CounterKey) -> Result<Option<Vec<u8>>, StoreError> {
        let client = self.client(self.shard(key))?;
        let reply = command(&client, "GET", vec![key.as_str().into()]).await?;
        Ok(reply.as_bytes().map(ToOwned::to_owned))
    }
}

fn page(reply: Value) -> Option<HashPage> {
    let [cursor, fields] = <[Value; 2]>::try_from(reply.into_array()).ok()?;
    let cursor: u64 = cursor.as_string()?.parse().ok()?;
    let mut page = HashPage {
        fields: Vec::new(),
        next: (cursor != 0).then_some(cursor),
    };
    let mut words = fields.into_array().into_iter();
    while let (Some(field), Some(value)) = (words.next(), words.next()) {
        page.fields
            .push((field.as_bytes()?.to_owned(), value.as_bytes()?.to_owned()));
    }
    Some(page)
}
