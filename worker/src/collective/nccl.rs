//! NCCL on CUDA devices: one process a device, one communicator a generation, every wait ended by an abort.
//!
//! Takes: a unique id that rank 0 mints and the control plane hands out. The communicator does not block: each call is
//! queued, then watched from the host together with the abort flag, so that a dead peer cannot hold a worker for ever.
#![allow(unsafe_code, reason = "NCCL and device pointers have no safe interface")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtrMut as _, DeviceRepr, DriverError};
use cudarc::nccl::result::{self, NcclError, NcclStatus};
use cudarc::nccl::sys;
use longtake_shared::ids::{Generation, Rank};

use super::{Aborter, Collective, CollectiveError, check_peers};

/// What all ranks of a communicator must know: minted by rank 0, good for one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniqueId(pub [u8; 128]);

/// Where a worker stands in a generation, and on which device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// The generation.
    pub generation: Generation,
    /// The rank.
    pub rank: Rank,
    /// How many ranks there are.
    pub world: usize,
    /// Which of the visible CUDA devices.
    pub device: usize,
}

/// A communicator of one generation.
pub struct Nccl {
    seat: Seat,
    /// Null once aborted.
    communicator: sys::ncclComm_t,
    stream: Arc<CudaStream>,
    aborter: Aborter,
    broken: Option<CollectiveError>,
}

// SAFETY: NCCL allows a communicator to be used from any thread, one at a time; `&mut self` sees to the latter.
unsafe impl Send for Nccl {}

impl std::fmt::Debug for Nccl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nccl").field("seat", &self.seat).field("broken", &self.broken).finish_non_exhaustive()
    }
}

/// Pause between two looks at what is under way. An abort ends the pause at once.
const LOOK: Duration = Duration::from_micros(50);

impl Nccl {
    /// Forms the communicator of a generation. `hand_out` is given the id on rank 0 and nothing elsewhere, and returns
    /// the id that rank 0 gave it, on every rank.
    ///
    /// # Errors
    /// There is no NCCL library or device, a rank did not come before `deadline`, or it was aborted.
    pub fn connect(
        seat: Seat,
        hand_out: impl FnOnce(Option<UniqueId>) -> Result<UniqueId, CollectiveError>,
        deadline: Instant,
        aborter: Aborter,
    ) -> Result<Self, CollectiveError> {
        if seat.rank.index() >= seat.world {
            return Err(CollectiveError::NoSuchRank { rank: seat.rank, world: seat.world });
        }
        // SAFETY: loading a library runs its initialisers, and NCCL has none that matter; no function of it is called.
        if !unsafe { sys::is_culib_present() } {
            return Err(CollectiveError::system(
                "loading NCCL",
                &"there is no `libnccl.so` on the library path",
            ));
        }
        let minted = if seat.rank == Rank(0) { Some(mint()?) } else { None };
        let id = hand_out(minted)?;
        let context =
            CudaContext::new(seat.device).map_err(|error| driver("opening the CUDA device", error))?;
        let stream = context.new_stream().map_err(|error| driver("making a CUDA stream", error))?;
        let communicator = start(seat, id)?;
        let mut nccl = Self { seat, communicator, stream, aborter, broken: None };
        let formed = nccl.settle(Some(deadline));
        nccl.keep(formed)?;
        Ok(nccl)
    }

    /// Sums a device buffer of f32 over all ranks, in place.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    ///
    /// # Safety
    /// `pointer` is the address of `length` values of f32 on this communicator's device, which nothing else reads or
    /// writes until this returns: whatever wrote them has been waited for.
    pub unsafe fn all_reduce_device(&mut self, pointer: u64, length: usize) -> Result<(), CollectiveError> {
        self.enqueue("an all-reduce", |communicator, stream| {
            let buffer = pointer as *mut core::ffi::c_void;
            let (kind, sum) = (sys::ncclDataType_t::ncclFloat32, sys::ncclRedOp_t::ncclSum);
            // SAFETY: the caller vouches for the buffer, and the communicator is not null (`enqueue`).
            unsafe { result::all_reduce(buffer, buffer, length, kind, sum, communicator, stream) }
        })
    }

    /// Queues one operation and waits for its end.
    fn enqueue(
        &mut self,
        what: &'static str,
        operation: impl FnOnce(sys::ncclComm_t, sys::cudaStream_t) -> Result<NcclStatus, NcclError>,
    ) -> Result<(), CollectiveError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let outcome = self.aborter.check().and_then(|()| {
            self.bind()?;
            operation(self.communicator, self.stream.cu_stream().cast())
                .map_err(|error| nccl(what, &error))?;
            self.settle(None)?;
            self.finish()
        });
        self.keep(outcome)
    }

    /// Makes the device's context this thread's.
    fn bind(&self) -> Result<(), CollectiveError> {
        self.stream.context().bind_to_thread().map_err(|error| driver("using the CUDA device", error))
    }

    /// Waits until NCCL has taken up what it was given; queueing may take as long as the peers do.
    fn settle(&self, deadline: Option<Instant>) -> Result<(), CollectiveError> {
        while self.status()? == NcclStatus::InProgress {
            self.pause(deadline)?;
        }
        Ok(())
    }

    /// Waits until the device has done all that is queued.
    fn finish(&self) -> Result<(), CollectiveError> {
        let event =
            self.stream.record_event(None).map_err(|error| driver("recording a CUDA event", error))?;
        while !event.try_is_complete().map_err(|error| driver("a collective on the device", error))? {
            self.status()?;
            self.pause(None)?;
        }
        Ok(())
    }

    fn status(&self) -> Result<NcclStatus, CollectiveError> {
        let mut state = sys::ncclResult_t::ncclSuccess;
        // SAFETY: the communicator is alive: it is aborted only by `keep` and `drop`, which let nobody come here.
        unsafe { sys::ncclCommGetAsyncError(self.communicator, &raw mut state) }
            .result()
            .and_then(|_| state.result())
            .map_err(|error| nccl("a collective", &error))
    }

    fn pause(&self, deadline: Option<Instant>) -> Result<(), CollectiveError> {
        let now = Instant::now();
        if deadline.is_some_and(|deadline| now >= deadline) {
            // NCCL does not say who is missing; rank 0 is where all others meet.
            return Err(CollectiveError::NotFormed { missing: Rank(0), generation: self.seat.generation });
        }
        self.aborter.wait(&[], Some(now + LOOK)).map(|_| ())
    }

    /// After an error the communicator is aborted, which also ends the other ranks' calls.
    fn keep(&mut self, outcome: Result<(), CollectiveError>) -> Result<(), CollectiveError> {
        if let Err(error) = &outcome {
            self.broken = Some(error.clone());
            self.abort_communicator();
        }
        outcome
    }

    fn abort_communicator(&mut self) {
        if self.communicator.is_null() {
            return;
        }
        let communicator = std::mem::replace(&mut self.communicator, std::ptr::null_mut());
        // SAFETY: it was made by NCCL and nobody keeps a copy. It frees itself even where it returns an error.
        if let Err(error) = unsafe { result::comm_abort(communicator) } {
            tracing::warn!(code = ?error.0, "NCCL could not abort a communicator");
        }
    }

    fn upload<T: DeviceRepr>(&mut self, values: &[T]) -> Result<CudaSlice<T>, CollectiveError> {
        self.bind()?;
        let buffer =
            self.stream.clone_htod(values).map_err(|error| driver("copying to the device", error))?;
        self.stream.synchronize().map_err(|error| driver("copying to the device", error))?;
        Ok(buffer)
    }

    fn download<T: DeviceRepr>(
        &self,
        buffer: &CudaSlice<T>,
        values: &mut [T],
    ) -> Result<(), CollectiveError> {
        self.stream.memcpy_dtoh(buffer, values).map_err(|error| driver("copying from the device", error))?;
        self.stream.synchronize().map_err(|error| driver("copying from the device", error))
    }

    /// Broadcasts bytes of a length that all ranks know.
    fn broadcast_exactly(&mut self, root: Rank, bytes: &mut [u8]) -> Result<(), CollectiveError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut buffer = self.upload(bytes)?;
        let stream = Arc::clone(&self.stream);
        let (pointer, guard) = buffer.device_ptr_mut(&stream);
        self.enqueue("a broadcast", |communicator, stream| {
            let (buffer, root) = (pointer as *mut core::ffi::c_void, root.0 as core::ffi::c_int);
            let kind = sys::ncclDataType_t::ncclUint8;
            // SAFETY: `buffer` holds `bytes.len()` bytes on this device and lives until the download below.
            unsafe { result::broadcast(buffer, buffer, bytes.len(), kind, root, communicator, stream) }
        })?;
        drop(guard);
        self.download(&buffer, bytes)
    }
}

impl Nccl {
    /// Exchanges messages whose lengths both ends know.
    fn exchange_exactly(
        &mut self,
        send: &[(Rank, Vec<u8>)],
        receive: &[Rank],
        lengths: &[usize],
    ) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let mut received = Vec::with_capacity(lengths.len());
        for length in lengths {
            let mut bytes: Vec<u8> = Vec::new();
            bytes
                .try_reserve_exact(*length)
                .map_err(|error| CollectiveError::system("making room for a message", &error))?;
            bytes.resize(*length, 0);
            received.push(bytes);
        }
        // NCCL takes no empty messages, and both ends know which these are.
        let mut outgoing = Vec::new();
        for (peer, bytes) in send.iter().filter(|(_, bytes)| !bytes.is_empty()) {
            outgoing.push((peer.0 as core::ffi::c_int, self.upload(bytes)?));
        }
        let mut incoming = Vec::new();
        for (peer, bytes) in receive.iter().zip(&received).filter(|(_, bytes)| !bytes.is_empty()) {
            incoming.push((peer.0 as core::ffi::c_int, self.upload(bytes)?));
        }
        if outgoing.is_empty() && incoming.is_empty() {
            return self.broken.clone().map_or_else(|| self.aborter.check(), Err).map(|()| received);
        }
        let stream = Arc::clone(&self.stream);
        let mut messages = Vec::with_capacity(outgoing.len() + incoming.len());
        let mut guards = Vec::with_capacity(messages.capacity());
        for (sends, buffers) in [(true, &mut outgoing), (false, &mut incoming)] {
            for (peer, buffer) in buffers {
                let length = buffer.len();
                let (pointer, guard) = buffer.device_ptr_mut(&stream);
                messages.push(Message { sends, peer: *peer, pointer, length });
                guards.push(guard);
            }
        }
        // SAFETY: the buffers behind the pointers live, and are nobody else's, until the guards are dropped below.
        self.enqueue("an exchange", |communicator, stream| unsafe {
            group(&messages, communicator, stream)
        })?;
        drop(guards);
        let mut filled = incoming.iter();
        for bytes in received.iter_mut().filter(|bytes| !bytes.is_empty()) {
            let (_, buffer) = filled.next().expect("there is a buffer for each message that is not empty");
            self.download(buffer, bytes)?;
        }
        Ok(received)
    }
}

/// One message of an exchange, on the device.
struct Message {
    sends: bool,
    peer: core::ffi::c_int,
    pointer: u64,
    length: usize,
}

/// Queues messages that run at once: none waits for another.
///
/// # Safety
/// Each pointer is the address of so many bytes on the communicator's device, and the communicator is not null.
unsafe fn group(
    messages: &[Message],
    communicator: sys::ncclComm_t,
    stream: sys::cudaStream_t,
) -> Result<NcclStatus, NcclError> {
    let kind = sys::ncclDataType_t::ncclUint8;
    result::group_start()?;
    for Message { sends, peer, pointer, length } in messages {
        let buffer = *pointer as *mut core::ffi::c_void;
        // SAFETY: as the caller vouches.
        unsafe {
            if *sends {
                result::send(buffer, *length, kind, *peer, communicator, stream)?;
            } else {
                result::recv(buffer, *length, kind, *peer, communicator, stream)?;
            }
        }
    }
    result::group_end()
}

impl Drop for Nccl {
    fn drop(&mut self) {
        self.abort_communicator();
    }
}

impl Collective for Nccl {
    fn rank(&self) -> Rank {
        self.seat.rank
    }

    fn world(&self) -> usize {
        self.seat.world
    }

    fn generation(&self) -> Generation {
        self.seat.generation
    }

    /// Through the device. NCCL compares no lengths: ranks that differ wait until they are aborted.
    fn all_reduce(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        if values.is_empty() {
            return self.barrier();
        }
        let mut buffer = self.upload(values)?;
        let stream = Arc::clone(&self.stream);
        let (pointer, guard) = buffer.device_ptr_mut(&stream);
        // SAFETY: the buffer holds `values.len()` values, was filled before `upload` returned, and is nobody else's.
        unsafe { self.all_reduce_device(pointer, values.len()) }?;
        drop(guard);
        self.download(&buffer, values)
    }

    fn broadcast(&mut self, root: Rank, bytes: &mut Vec<u8>) -> Result<(), CollectiveError> {
        if root.index() >= self.seat.world {
            return Err(CollectiveError::NoSuchRank { rank: root, world: self.seat.world });
        }
        let mut length = (bytes.len() as u64).to_le_bytes();
        self.broadcast_exactly(root, &mut length)?;
        let length = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
        if root != self.seat.rank {
            bytes.clear();
            bytes
                .try_reserve_exact(length)
                .map_err(|error| CollectiveError::system("making room for a broadcast", &error))?;
            bytes.resize(length, 0);
        }
        self.broadcast_exactly(root, bytes)
    }

    /// Lengths, then bytes, each as one group of sends and receives.
    fn exchange(
        &mut self,
        send: &[(Rank, Vec<u8>)],
        receive: &[Rank],
    ) -> Result<Vec<Vec<u8>>, CollectiveError> {
        check_peers(self.seat.rank, self.seat.world, send, receive)?;
        let lengths: Vec<(Rank, Vec<u8>)> =
            send.iter().map(|(peer, bytes)| (*peer, (bytes.len() as u64).to_le_bytes().to_vec())).collect();
        let announced = self.exchange_exactly(&lengths, receive, &vec![8; receive.len()])?;
        let expected: Vec<usize> = announced
            .iter()
            .map(|length| {
                let length = u64::from_le_bytes(length.as_slice().try_into().unwrap_or_default());
                usize::try_from(length).unwrap_or(usize::MAX)
            })
            .collect();
        self.exchange_exactly(send, receive, &expected)
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.all_reduce(&mut [0.0])
    }

    fn aborter(&self) -> Aborter {
        self.aborter.clone()
    }
}

fn mint() -> Result<UniqueId, CollectiveError> {
    let id = result::get_uniqueid().map_err(|error| nccl("minting a unique id", &error))?;
    Ok(UniqueId(id.internal.map(|byte| byte as u8)))
}

/// Begins to form a communicator that does not block; [`Nccl::settle`] waits for it.
fn start(seat: Seat, id: UniqueId) -> Result<sys::ncclComm_t, CollectiveError> {
    let id = sys::ncclUniqueId { internal: id.0.map(|byte| byte as core::ffi::c_char) };
    let mut config = non_blocking();
    let mut communicator = std::ptr::null_mut();
    // SAFETY: both pointers are to live locals, and NCCL copies the configuration before it returns.
    unsafe {
        result::comm_init_rank_config(
            &raw mut communicator,
            seat.world as core::ffi::c_int,
            id,
            seat.rank.0 as core::ffi::c_int,
            &raw mut config,
        )
    }
    .map_err(|error| nccl("forming the communicator", &error))?;
    Ok(communicator)
}

/// What `NCCL_CONFIG_INITIALIZER` of nccl.h 2.30 sets, with `blocking` off.
fn non_blocking() -> sys::ncclConfig_t {
    const MAGIC: core::ffi::c_uint = 0xcafe_beef;
    const VERSION: core::ffi::c_uint = 23_000;
    const UNDEFINED: core::ffi::c_int = core::ffi::c_int::MIN;
    sys::ncclConfig_t {
        size: size_of::<sys::ncclConfig_t>(),
        magic: MAGIC,
        version: VERSION,
        blocking: 0,
        cgaClusterSize: UNDEFINED,
        minCTAs: UNDEFINED,
        maxCTAs: UNDEFINED,
        netName: std::ptr::null(),
        splitShare: UNDEFINED,
        trafficClass: UNDEFINED,
        commName: std::ptr::null(),
        collnetEnable: UNDEFINED,
        CTAPolicy: UNDEFINED,
        shrinkShare: UNDEFINED,
        nvlsCTAs: UNDEFINED,
        nChannelsPerNetPeer: UNDEFINED,
        nvlinkCentricSched: UNDEFINED,
        graphUsageMode: UNDEFINED,
        numRmaCtx: UNDEFINED,
        maxP2pPeers: UNDEFINED,
    }
}

fn nccl(what: &'static str, error: &NcclError) -> CollectiveError {
    CollectiveError::System { what, reason: format!("NCCL says {:?}", error.0) }
}

fn driver(what: &'static str, error: DriverError) -> CollectiveError {
    CollectiveError::system(what, &error)
}
