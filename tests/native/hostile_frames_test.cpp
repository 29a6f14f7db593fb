// A member, or a stranger, that sends anything at all: the core refuses, keeps within its bounds,
// and never writes outside the op's output (AddressSanitizer watches; the outputs have guards
// besides).

#include <cstring>
#include <random>

#include "atoll/collective/run.h"
#include "loopback.h"

namespace reef::testing {
namespace {

constexpr float kGuard = -98765.0F;
constexpr std::size_t kGuards = 64;

// A vector with guards around what the core may write.
struct Guarded {
  explicit Guarded(std::size_t elements)
      : in(elements, 1.0F), memory(elements + 2 * kGuards, kGuard), count(elements) {}
  std::span<std::byte> out() {
    return std::as_writable_bytes(std::span(memory).subspan(kGuards, count));
  }
  [[nodiscard]] bool intact() const {
    for (std::size_t i = 0; i < kGuards; ++i) {
      if (memory[i] != kGuard || memory[kGuards + count + i] != kGuard) return false;
    }
    return std::all_of(in.begin(), in.end(), [](float x) { return x == 1.0F; });
  }
  std::vector<float> in;
  std::vector<float> memory;
  std::size_t count;
};

class Hostile {
 public:
  explicit Hostile(std::uint64_t seed) : random_(seed), core_(peer_id(0), options()) {
    members_ = 2 + random_() % 3;
    View view;
    view.epoch = 5;
    for (std::size_t i = 0; i < members_; ++i) view.members.push_back(peer_id(i));
    core_.install(view, {}, Change::abort, 0);
    for (Channel channel = 0; channel < 3; ++channel) {
      vectors_.push_back(std::make_unique<Guarded>(random_() % 200));
      submit(channel, random_() % 4 == 0);
    }
  }
  // One frame that is nearly right, or not at all.
  void attack() {
    FrameHeader header;
    header.type = one_of<FrameType>({FrameType::start, FrameType::data, FrameType::data,
                                     FrameType::data, FrameType::done, FrameType::hello});
    header.channel = static_cast<Channel>(random_() % 4) | (random_() % 4 == 0 ? 1u << 31 : 0u);
    header.epoch = random_() % 8 == 0 ? random_() % 12 : 5;
    header.sequence = random_() % 8 == 0 ? random_() : random_() % 3;
    header.phase = static_cast<std::uint16_t>(random_() % 16 == 0 ? random_() : random_() % 8);
    header.offset = random_() % 16 == 0 ? random_() : 4 * (random_() % 220);
    header.length = static_cast<std::uint32_t>(random_() % 16 == 0 ? random_() % 9'000
                                                                   : 4 * (random_() % 34));
    if (header.type == FrameType::done) header.length = 0;
    if (random_() % 2 == 0) align(header);
    const std::size_t from = random_() % 16 == 0 ? random_() % 9 : 1 + random_() % (members_ - 1);
    header.sender_rank = static_cast<Rank>(random_() % 16 == 0 ? random_() : from);
    std::vector<std::byte> payload(header.length);
    for (std::byte& each : payload) each = static_cast<std::byte>(random_());
    if (header.type == FrameType::start) payload = description(header);
    send(peer_id(from), header, payload);
  }
  [[nodiscard]] bool intact() const {
    return std::all_of(vectors_.begin(), vectors_.end(),
                       [](const auto& each) { return each->intact(); });
  }
  [[nodiscard]] std::size_t taken() const { return taken_; }
  [[nodiscard]] std::size_t refused() const { return refused_; }

 private:
  static CoreOptions options() {
    CoreOptions options;
    options.chunk_bytes = 64;
    return options;
  }
  template <typename T>
  T one_of(std::initializer_list<T> choices) {
    return *(choices.begin() + static_cast<std::ptrdiff_t>(random_() % choices.size()));
  }
  void submit(Channel channel, bool exchange) {
    Guarded& vector = *vectors_[channel];
    OpRequest request;
    request.id = channel + 1;
    request.channel = channel;
    request.kind = exchange ? OpKind::exchange
                            : one_of<OpKind>({OpKind::all_reduce, OpKind::broadcast});
    if (request.kind == OpKind::all_reduce) {
      request.plan = one_of<Plan>(
          {Plan::ring, Plan::direct, Plan::mesh, Plan::doubling, Plan::grouped});
    }
    request.root = peer_id(random_() % members_);
    request.partner = peer_id(1);
    request.tag = random_() % 3;
    request.count = vector.count;
    request.in = std::as_bytes(std::span(vector.in));
    request.out = vector.out();
    requests_.push_back(request);
    ASSERT_TRUE(core_.submit(request, 0).ok());
  }
  // To a chunk that may exist.
  void align(FrameHeader& header) {
    if (header.type != FrameType::data) return;
    const std::uint64_t bytes = 4 * vectors_[header.channel % 3]->count;
    const std::uint64_t pieces = one_of<std::uint64_t>({1, members_});
    const std::uint64_t piece = random_() % pieces;
    const std::uint64_t begin = bytes / 4 * piece / pieces * 4;
    const std::uint64_t end = bytes / 4 * (piece + 1) / pieces * 4;
    header.offset = begin + 64 * (random_() % 4);
    header.length = static_cast<std::uint32_t>(
        end > header.offset ? std::min<std::uint64_t>(64, end - header.offset) : 64);
  }
  std::vector<std::byte> description(FrameHeader& header) {
    OpDescription said;
    const OpRequest& request = requests_[header.channel % 3];
    said.kind = request.kind;
    said.count = request.count;
    said.chunk_bytes = 64;
    if (request.kind == OpKind::all_reduce) {
      said.plan = request.plan;
      said.reduction = Reduction::sum;
    }
    if (random_() % 8 == 0) said.root = static_cast<Rank>(random_());
    DescriptionBytes bytes = encode_description(said);
    if (random_() % 8 == 0) bytes[random_() % bytes.size()] = static_cast<std::byte>(random_());
    std::vector<std::byte> payload(bytes.begin(), bytes.end());
    if (random_() % 16 == 0) payload.resize(random_() % 60);
    header.length = static_cast<std::uint32_t>(payload.size());
    return payload;
  }
  void send(const PeerId& from, const FrameHeader& header, std::span<const std::byte> payload) {
    OpId op = 0;
    const std::span<std::byte> place = core_.place(from, header, op);
    std::span<const std::byte> where = payload;
    if (!place.empty()) {
      ASSERT_EQ(place.size(), payload.size());
      std::memcpy(place.data(), payload.data(), payload.size());
      if (random_() % 4 != 0) where = place;
    }
    (core_.deliver(from, header, where, 0).ok() ? taken_ : refused_) += 1;
    Action action;
    while (core_.next(action)) {
    }
  }

  std::mt19937_64 random_;
  Core core_;
  std::size_t members_ = 0;
  std::vector<std::unique_ptr<Guarded>> vectors_;
  std::vector<OpRequest> requests_;
  std::size_t taken_ = 0;
  std::size_t refused_ = 0;
};

TEST(HostileFrames, NeverCrashOrWriteOutside) {
  std::size_t taken = 0;
  std::size_t refused = 0;
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    Hostile world(seed);
    for (int i = 0; i < 300; ++i) world.attack();
    ASSERT_TRUE(world.intact()) << seed;
    taken += world.taken();
    refused += world.refused();
  }
  EXPECT_GT(taken, 10'000u);
  EXPECT_GT(refused, 10'000u);
}

// A member that does not keep to its allowance is refused before it fills this one's memory.
TEST(HostileFrames, AFloodIsRefused) {
  Loopback net(2);
  net.install_all();
  const std::vector<std::byte> payload(1u << 20);
  FrameHeader header;
  header.type = FrameType::data;
  header.epoch = 2;
  header.length = 1u << 20;
  header.sender_rank = 1;
  std::size_t kept = 0;
  while (net.core(0).deliver(peer_id(1), header, payload, 0).ok()) {
    ++header.sequence;
    ASSERT_LE(++kept, 1'000u);
  }
  EXPECT_EQ(kept, limits::kMaxEarlyBytesPerPeer >> 20);
}

class Refusals : public ::testing::Test {
 protected:
  Refusals() : net(3) {
    net.install_all();
    for (Buffers& each : buffers) each = {std::vector<float>(48, 1), std::vector<float>(48, 0)};
    OpRequest request = net.all_reduce(buffers[0], 0, Plan::ring);
    net.submit(0, request);
    request = net.all_reduce(buffers[1], 0, Plan::ring);
    net.submit(1, request);
    request = net.all_reduce(buffers[2], 0, Plan::ring);
    net.submit(2, request);
    // All STARTs, no DATA: from here on, what does not fit is wrong.
    net.run_only([](const Frame& f) { return f.header.type == FrameType::start; });
    const auto data = std::find_if(net.under_way.begin(), net.under_way.end(), [](const Frame& f) {
      return f.to == 0 && f.header.type == FrameType::data;
    });
    frame = *data;
  }
  template <typename Change>
  bool refused(Change change) {
    Frame changed = frame;
    changed.payload.resize(64, std::byte{1});
    change(changed);
    changed.payload.resize(changed.header.length);
    const Status status = net.core(0).deliver(peer_id(changed.from), changed.header,
                                              changed.payload, 0);
    return !status.ok() && status.error().code == Code::protocol;
  }
  Loopback net;
  Buffers buffers[3];
  Frame frame;
};

TEST_F(Refusals, OfAChunkThatIsNotExactlyDue) {
  EXPECT_TRUE(refused([](Frame& f) { f.header.phase = 1; }));
  EXPECT_TRUE(refused([](Frame& f) { f.header.phase = 2; }));  // a gather hop before its reduce hop
  EXPECT_TRUE(refused([](Frame& f) { f.header.phase = 4; }));
  EXPECT_TRUE(refused([](Frame& f) { f.header.offset += 4; }));
  EXPECT_TRUE(refused([](Frame& f) { f.header.offset = 1ull << 60; }));
  EXPECT_TRUE(refused([](Frame& f) { f.header.length -= 4; }));
  EXPECT_TRUE(refused([](Frame& f) { f.header.length = 0; }));
  EXPECT_TRUE(refused([](Frame& f) { f.from = 1; f.header.sender_rank = 1; }));  // not my neighbour
  EXPECT_TRUE(refused([](Frame& f) { f.header.sender_rank = 1; }));
  EXPECT_TRUE(refused([](Frame& f) { f.from = 7; }));
  EXPECT_TRUE(refused([](Frame& f) { f.from = 0; f.header.sender_rank = 0; }));
  EXPECT_TRUE(refused([](Frame& f) { f.header.epoch = 0; }));
  EXPECT_TRUE(refused([](Frame& f) { f.header.sequence = 2; }));
  EXPECT_TRUE(refused([](Frame& f) { f.header.type = FrameType::state_data; }));
  EXPECT_TRUE(refused([](Frame& f) { f.header.type = FrameType::start; }));
  EXPECT_TRUE(refused([](Frame& f) {
    f.header.type = FrameType::done;
    f.header.phase = kLastReason + 1;
    f.header.length = 0;
  }));
  // None of it has left a trace: the chunk itself is still welcome, once.
  EXPECT_FALSE(refused([](Frame&) {}));
  EXPECT_TRUE(refused([](Frame&) {}));
}

TEST_F(Refusals, OfEarlyFramesComeWhenAllHaveStarted) {
  Buffers next[3];
  Frame lie = frame;
  lie.header.sequence = 1;
  lie.header.offset += 4;
  EXPECT_TRUE(net.core(0).deliver(peer_id(2), lie.header, lie.payload, 0).ok());
  net.run();
  for (std::size_t peer = 0; peer < 3; ++peer) {
    EXPECT_TRUE(net.blamed().empty());  // it may still be a disagreement
    next[peer] = {std::vector<float>(48, 1), std::vector<float>(48, 0)};
    net.submit(peer, net.all_reduce(next[peer], 0, Plan::ring));
  }
  net.run();
  ASSERT_EQ(net.blamed().size(), 1u);
  EXPECT_EQ(net.blamed()[0].peer, peer_id(2));
  EXPECT_EQ(net.blamed()[0].error.code, Code::protocol);
}

}  // namespace
}  // namespace reef::testing
