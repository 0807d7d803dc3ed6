//! What a token does with its objects. The rules about who may see and change what are here.

use std::sync::Arc;

use cryptoki_sys as ck;

use crate::creation::Creator;
use crate::object::{Object, Template};
use crate::object_table::{Entry, Location, ObjectHandle, ReadKeyFile};
use crate::pin::SealingKey;
use crate::refusal::Refusal;
use crate::session::{Access, SessionHandle};
use crate::store::KeyFileId;
use crate::stored::{Generation, KeyFile, Part, StoredObject};
use crate::token::{Live, Login, Token};

/// Attributes and the bytes they must have.
pub type Wanted = [(ck::CK_ATTRIBUTE_TYPE, Vec<u8>)];

impl Token {
    pub fn creator(&self) -> Result<Creator, Refusal> {
        let is_security_officer = self.is_security_officer()?;
        Ok(Creator { personality: self.personality, is_security_officer })
    }

    /// Adds what one call made: either all of it or nothing. Handles come in the same order.
    pub fn add_objects(
        &self,
        session: SessionHandle,
        access: Access,
        objects: Vec<Object>,
    ) -> Result<Vec<ObjectHandle>, Refusal> {
        let login = self.live.read()?.user_login().cloned();
        for object in &objects {
            require_write(access, login.is_some(), object)?;
        }
        let file = self.add_key_file(&objects, login.as_ref())?;
        let mut live = self.live.write()?;
        if !live.sessions.contains_key(&session) {
            return Err(Refusal::SessionHandleInvalid);
        }
        if objects.iter().any(Object::is_private) && !is_same_login(live.user_login(), login.as_ref()) {
            // Somebody logged out in between. What is on disk stays there, as if the call had ended
            // just before; there is no handle to give.
            return Err(Refusal::UserNotLoggedIn);
        }
        let mut handles = Vec::new();
        for (part, object) in parts().zip(objects) {
            let is_private = object.is_private();
            handles.push(match file {
                Some((generation, file)) if object.is_token_object() => {
                    live.objects.handle_of(Location { generation, file, part }, is_private)
                }
                _ => live.objects.add_session_object(Arc::new(object), session),
            });
        }
        Ok(handles)
    }

    fn add_key_file(
        &self,
        objects: &[Object],
        login: Option<&Login>,
    ) -> Result<Option<(Generation, KeyFileId)>, Refusal> {
        if !objects.iter().any(Object::is_token_object) {
            return Ok(None);
        }
        let token_key = login.map(|login| &*login.token_key);
        let file = KeyFileId::random()?;
        let stored = parts()
            .zip(objects)
            .filter(|(_, object)| object.is_token_object())
            .map(|(part, object)| StoredObject::seal(object, file, part, token_key))
            .collect::<Result<Vec<_>, _>>()?;
        let lock = self.directory.lock_shared()?;
        let state = match login {
            Some(login) => self.state_of(login)?,
            None => self.state()?,
        };
        let generation = state.identity.generation;
        self.directory.add_key_file(&lock, generation, file, &KeyFile { parts: stored })?;
        Ok(Some((generation, file)))
    }

    /// The object behind a handle, as it is on disk now.
    pub fn object(&self, handle: ObjectHandle) -> Result<Arc<Object>, Refusal> {
        let (location, login) = {
            let live = self.live.read()?;
            let location = match live.objects.entry(handle).ok_or(Refusal::ObjectHandleInvalid)? {
                Entry::OfSession { object, .. } => return Ok(object.clone()),
                Entry::OnToken { location, .. } => *location,
            };
            if let Some(read) = self.known_key_file(&live, location.generation, location.file)? {
                return read.object(location.part).ok_or(Refusal::ObjectHandleInvalid);
            }
            (location, live.user_login().cloned())
        };
        let read = self.read_key_file(location.generation, location.file, login.as_ref())?;
        let Some(read) = read else {
            self.live.write()?.objects.forget(handle);
            return Err(Refusal::ObjectHandleInvalid);
        };
        let object = read.object(location.part).ok_or(Refusal::ObjectHandleInvalid)?;
        let mut live = self.live.write()?;
        if is_same_login(live.user_login(), login.as_ref()) {
            live.objects.keep(location.file, read);
        } else if object.is_private() {
            return Err(Refusal::ObjectHandleInvalid);
        }
        Ok(object)
    }

    /// The handles of everything that matches and may be seen: token objects, then session objects.
    pub fn find(&self, wanted: &Wanted) -> Result<Vec<ObjectHandle>, Refusal> {
        loop {
            let (found, login) = {
                let live = self.live.read()?;
                let login = live.user_login().cloned();
                (self.read_all(&live, login.as_ref())?, login)
            };
            let mut live = self.live.write()?;
            if !is_same_login(live.user_login(), login.as_ref()) {
                continue;
            }
            let is_visible = |object: &Object| login.is_some() || !object.is_private();
            let mut handles = Vec::new();
            for (generation, file, read) in found {
                for (part, object) in &read.objects {
                    if is_visible(object) && object.matches(wanted) {
                        let location = Location { generation, file, part: *part };
                        handles.push(live.objects.handle_of(location, object.is_private()));
                    }
                }
                live.objects.keep(file, read);
            }
            let mut of_sessions: Vec<_> = live
                .objects
                .session_objects()
                .filter(|(_, object)| is_visible(object) && object.matches(wanted))
                .map(|(handle, _)| handle)
                .collect();
            of_sessions.sort_unstable_by_key(|handle| handle.0);
            handles.extend(of_sessions);
            return Ok(handles);
        }
    }

    /// `C_SetAttributeValue`.
    pub fn change(&self, access: Access, handle: ObjectHandle, changes: Template) -> Result<(), Refusal> {
        let by_security_officer = self.is_security_officer()?;
        self.update(access, handle, |object| object.changed(changes, by_security_officer).map(Some))
    }

    /// `C_DestroyObject`.
    pub fn destroy(&self, access: Access, handle: ObjectHandle) -> Result<(), Refusal> {
        self.update(access, handle, |object| {
            if object.flag(ck::CKA_DESTROYABLE) { Ok(None) } else { Err(Refusal::ActionProhibited) }
        })
    }

    /// Puts what `edit` makes of an object in its place; `None` removes it.
    fn update(
        &self,
        access: Access,
        handle: ObjectHandle,
        edit: impl FnOnce(&Object) -> Result<Option<Object>, Refusal>,
    ) -> Result<(), Refusal> {
        let mut live = self.live.write()?;
        let login = live.user_login().cloned();
        let entry = live.objects.entry(handle).cloned().ok_or(Refusal::ObjectHandleInvalid)?;
        let location = match entry {
            Entry::OfSession { object, .. } => {
                match edit(&object)? {
                    Some(changed) => live.objects.replace_session_object(handle, Arc::new(changed)),
                    None => live.objects.forget(handle),
                }
                return Ok(());
            }
            Entry::OnToken { location, .. } => location,
        };
        let Location { generation, file, part } = location;
        let token_key = login.as_ref().map(|login| &*login.token_key);
        let lock = self.directory.lock_exclusive()?;
        let Some((content, _)) = self.directory.read_key_file(generation, file)? else {
            live.objects.forget(handle);
            return Err(Refusal::ObjectHandleInvalid);
        };
        let (mut edited, mut kept): (Vec<_>, Vec<_>) =
            content.parts.into_iter().partition(|stored| stored.part == part);
        let stored = edited.pop().ok_or(Refusal::ObjectHandleInvalid)?;
        let object = stored.open(file, token_key)?.ok_or(Refusal::ObjectHandleInvalid)?;
        require_write(access, login.is_some(), &object)?;
        let changed = edit(&object)?;
        if let Some(changed) = &changed {
            kept.push(StoredObject::seal(changed, file, part, token_key)?);
        }
        if kept.is_empty() {
            self.directory.remove_key_file(&lock, generation, file)?;
        } else {
            self.directory.replace_key_file(&lock, generation, file, &KeyFile { parts: kept })?;
        }
        if changed.is_none() {
            live.objects.forget(handle);
        }
        Ok(())
    }

    fn read_all(
        &self,
        live: &Live,
        login: Option<&Login>,
    ) -> Result<Vec<(Generation, KeyFileId, Arc<ReadKeyFile>)>, Refusal> {
        let generation = match login {
            Some(login) => self.state_of(login)?.identity.generation,
            None => self.state()?.identity.generation,
        };
        let mut all = Vec::new();
        for file in self.directory.key_files(generation)? {
            let read = match self.known_key_file(live, generation, file)? {
                Some(known) => Some(known),
                None => self.read_key_file(generation, file, login)?,
            };
            // A file that went away since the directory was listed was destroyed: not an error.
            all.extend(read.map(|read| (generation, file, read)));
        }
        Ok(all)
    }

    /// A key file that was read before and has not changed since.
    fn known_key_file(
        &self,
        live: &Live,
        generation: Generation,
        file: KeyFileId,
    ) -> Result<Option<Arc<ReadKeyFile>>, Refusal> {
        let Some(read) = live.objects.read_key_file(file) else { return Ok(None) };
        let is_current = read.stamp.is_some() && read.stamp == self.directory.stamp(generation, file)?;
        Ok(is_current.then(|| read.clone()))
    }

    fn read_key_file(
        &self,
        generation: Generation,
        file: KeyFileId,
        login: Option<&Login>,
    ) -> Result<Option<Arc<ReadKeyFile>>, Refusal> {
        let Some((content, stamp)) = self.directory.read_key_file(generation, file)? else {
            return Ok(None);
        };
        let token_key: Option<&SealingKey> = login.map(|login| &*login.token_key);
        let mut objects = Vec::new();
        for stored in content.parts {
            let part = stored.part;
            objects.extend(stored.open(file, token_key)?.map(|object| (part, Arc::new(object))));
        }
        Ok(Some(Arc::new(ReadKeyFile { stamp, objects })))
    }
}

fn parts() -> impl Iterator<Item = Part> {
    (0..=u8::MAX).map(Part)
}

fn require_write(access: Access, user_is_logged_in: bool, object: &Object) -> Result<(), Refusal> {
    if object.is_private() && !user_is_logged_in {
        return Err(Refusal::UserNotLoggedIn);
    }
    if object.is_token_object() && access == Access::ReadOnly {
        return Err(Refusal::SessionReadOnly);
    }
    Ok(())
}

fn is_same_login(one: Option<&Login>, other: Option<&Login>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(&one.token_key, &other.token_key),
        _ => false,
    }
}
