//! The objects of one token as this process sees them: handles, session objects, and the key files
//! that have been read.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::object::Object;
use crate::session::SessionHandle;
use crate::store::{FileStamp, KeyFileId};
use crate::stored::{Generation, Part};

/// Never zero, and never given twice in one process: a handle that died must not come back to life
/// as another object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectHandle(pub u64);

static NEXT_HANDLE: AtomicU64 = AtomicU64::new(1);

impl ObjectHandle {
    fn next() -> Self {
        Self(NEXT_HANDLE.fetch_add(1, Ordering::Relaxed))
    }
}

/// Where a token object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    pub generation: Generation,
    pub file: KeyFileId,
    pub part: Part,
}

/// What a handle stands for.
#[derive(Debug, Clone)]
pub enum Entry {
    OfSession { object: Arc<Object>, owner: SessionHandle },
    OnToken { location: Location, is_private: bool },
}

impl Entry {
    fn is_private(&self) -> bool {
        match self {
            Self::OfSession { object, .. } => object.is_private(),
            Self::OnToken { is_private, .. } => *is_private,
        }
    }
}

/// A key file that was read, as far as the login of that moment could open it.
#[derive(Debug)]
pub struct ReadKeyFile {
    /// `None` if the file was too young to be recognised again.
    pub stamp: Option<FileStamp>,
    pub objects: Vec<(Part, Arc<Object>)>,
}

impl ReadKeyFile {
    pub fn object(&self, part: Part) -> Option<Arc<Object>> {
        self.objects.iter().find(|(known, _)| *known == part).map(|(_, object)| object.clone())
    }
}

#[derive(Debug, Default)]
pub struct ObjectTable {
    entries: HashMap<ObjectHandle, Entry>,
    handles: HashMap<Location, ObjectHandle>,
    read: HashMap<KeyFileId, Arc<ReadKeyFile>>,
}

impl ObjectTable {
    pub fn entry(&self, handle: ObjectHandle) -> Option<&Entry> {
        self.entries.get(&handle)
    }

    pub fn add_session_object(&mut self, object: Arc<Object>, owner: SessionHandle) -> ObjectHandle {
        let handle = ObjectHandle::next();
        self.entries.insert(handle, Entry::OfSession { object, owner });
        handle
    }

    pub fn replace_session_object(&mut self, handle: ObjectHandle, changed: Arc<Object>) {
        if let Some(Entry::OfSession { object, .. }) = self.entries.get_mut(&handle) {
            *object = changed;
        }
    }

    /// The handle of a token object: the same one for as long as the login lasts.
    pub fn handle_of(&mut self, location: Location, is_private: bool) -> ObjectHandle {
        *self.handles.entry(location).or_insert_with(|| {
            let handle = ObjectHandle::next();
            self.entries.insert(handle, Entry::OnToken { location, is_private });
            handle
        })
    }

    pub fn session_objects(&self) -> impl Iterator<Item = (ObjectHandle, &Arc<Object>)> {
        self.entries.iter().filter_map(|(handle, entry)| match entry {
            Entry::OfSession { object, .. } => Some((*handle, object)),
            Entry::OnToken { .. } => None,
        })
    }

    pub fn forget(&mut self, handle: ObjectHandle) {
        if let Some(Entry::OnToken { location, .. }) = self.entries.remove(&handle) {
            self.handles.remove(&location);
            self.read.remove(&location.file);
        }
    }

    pub fn forget_objects_of(&mut self, session: SessionHandle) {
        self.entries.retain(|_, entry| !matches!(entry, Entry::OfSession { owner, .. } if *owner == session));
    }

    /// What logging out does: private objects are gone, and so is what was read with the login.
    pub fn forget_private(&mut self) {
        self.entries.retain(|_, entry| !entry.is_private());
        let entries = &self.entries;
        self.handles.retain(|_, handle| entries.contains_key(handle));
        self.forget_read();
    }

    pub fn read_key_file(&self, file: KeyFileId) -> Option<&Arc<ReadKeyFile>> {
        self.read.get(&file)
    }

    pub fn keep(&mut self, file: KeyFileId, content: Arc<ReadKeyFile>) {
        if content.stamp.is_some() {
            self.read.insert(file, content);
        }
    }

    pub fn forget_read(&mut self) {
        self.read.clear();
    }
}
