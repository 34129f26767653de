-- Sends the request bodies of a file one after another, and prints what happened as one line of JSON.
--
--   wrk ... -s wrk.lua URL -- FILE FIRST PAUSE
--
-- FILE holds one JSON body per line; FIRST is the index (from 0) of the line to begin with; PAUSE is the mean of the
-- milliseconds that a connection waits before it sends a request (anything from 0 to twice that), 0 for none.
-- There is no response(): defining it would make wrk copy every answer into Lua.

local requests = {}
local position = 0

function init(args)
  local headers = { ["Content-Type"] = "application/json" }
  for body in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, headers, body)
  end
  position = tonumber(args[2]) % #requests
  local pause = tonumber(args[3])
  if pause > 0 then
    function delay() -- wrk asks for it if it is there
      return math.random(0, 2 * pause)
    end
  end
end

function request()
  position = position % #requests + 1
  return requests[position]
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "microseconds": %d, "p50_us": %.0f, "p95_us": %.0f, "p99_us": %.0f, '
      .. '"refused": %d, "broken": %d}\n',
    summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(95), latency:percentile(99),
    e.status, e.connect + e.read + e.write + e.timeout))
end
